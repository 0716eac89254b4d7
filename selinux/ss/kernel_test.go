// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ss

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/vmtest"
	"github.com/palisade-sec/palisade/selinux/policydb"
)

const selinuxfs = "/sys/fs/selinux"

// TestKernelAnswers asks a real kernel through selinuxfs what the package says:
// decisions, new contexts, canonical contexts, changes of labels, also under
// other booleans. 100 000 questions for each of Debian's policies with
// PALISADE_FULL=1.
func TestKernelAnswers(t *testing.T) {
	n, flavours := count(100_000, 2_500), []string{"default", "mls"}
	if n < 100_000 && !vmtest.InGuest() {
		flavours = flavours[:1] // each boot takes its time
	}
	for _, flavour := range flavours {
		t.Run(flavour, func(t *testing.T) {
			var files []vmtest.File
			if !vmtest.InGuest() {
				files = []vmtest.File{{Guest: "/policy", Host: debian.Policy(t, flavour, nil).Policy}}
			}
			vmtest.Run(t, vmtest.Config{
				LSM: "selinux", Files: files,
				Env: []string{"PALISADE_QUESTIONS=" + strconv.Itoa(n)},
			}, kernelAnswers)
		})
	}
}

// TestKernelEvery does the same with a small policy that has every statement.
func TestKernelEvery(t *testing.T) {
	var files []vmtest.File
	if !vmtest.InGuest() {
		files = []vmtest.File{{Guest: "/policy", Data: everyPolicy(t)}}
	}
	vmtest.Run(t, vmtest.Config{
		LSM: "selinux", Files: files,
		Env: []string{"PALISADE_QUESTIONS=" + strconv.Itoa(count(20_000, 2_500))},
	}, kernelAnswers)
}

// kernelAnswers runs in the guest.
func kernelAnswers(t *testing.T) {
	data, err := os.ReadFile("/policy")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(selinuxfs+"/load", data, 0); err != nil {
		t.Fatalf("the kernel refuses the policy: %v", err)
	}
	n, err := strconv.Atoi(os.Getenv("PALISADE_QUESTIONS"))
	if err != nil {
		t.Fatal(err)
	}
	s := loadServer(t, data)
	k := &kernel{t: t, s: s, g: newGenerator(s.policy, 23)}
	k.setContexts()
	k.readBack()
	k.phase("as the policy is", n*3/4)
	k.flipBooleans()
	k.phase("with other booleans", n/4)
}

type kernel struct {
	t        *testing.T
	s        *Server
	g        *generator
	texts    []string
	contexts []*Context
	bad      int
}

// errf reports the first differences and counts the others.
func (k *kernel) errf(format string, args ...any) {
	if k.bad++; k.bad <= 10 {
		k.t.Errorf(format, args...)
	}
}

func (k *kernel) setContexts() {
	k.texts = append(k.g.contexts(400), transitionContexts(k.g, 400)...)
	k.contexts = resolve(k.s, k.texts)
}

// readBack reads the policy that the kernel writes from its memory, in an order of
// its own: it must come out as it went in and decide alike.
func (k *kernel) readBack() {
	data, err := os.ReadFile(selinuxfs + "/policy")
	if err != nil {
		k.t.Fatal(err)
	}
	back := loadServer(k.t, data)
	out, err := back.policy.Encode()
	if err != nil || !bytes.Equal(out, data) {
		k.t.Errorf("the kernel's own policy is not written back as it was: %v", err)
	}
	theirs := resolve(back, k.texts)
	for range 2000 {
		a, b := k.pair()
		class := k.s.policy.ClassName(policydb.ClassID(k.g.class()))
		if (k.contexts[a] == nil) != (theirs[a] == nil) || (k.contexts[b] == nil) != (theirs[b] == nil) {
			k.errf("%s, %s: valid in one form of the policy only", k.texts[a], k.texts[b])
			continue
		}
		if k.contexts[a] == nil || k.contexts[b] == nil || class == "" {
			continue
		}
		got, want := back.Decide(theirs[a], theirs[b], back.Class(class)), k.s.Decide(k.contexts[a], k.contexts[b], k.s.Class(class))
		if got != want {
			k.errf("read back: %s %s %s: %s, was %s", k.texts[a], k.texts[b], class, describe(got), describe(want))
		}
	}
}

// ask writes a question to a file of selinuxfs and reads the answer.
func (k *kernel) ask(file, question string) (string, error) {
	// Each open file has one answer; a new one is as the kernel wants it.
	f, err := os.OpenFile(filepath.Join(selinuxfs, file), os.O_RDWR, 0)
	if err != nil {
		k.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write([]byte(question)); err != nil {
		return "", err
	}
	buf := make([]byte, 8192)
	n, err := f.Read(buf)
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(buf[:n]), "\x00"), nil
}

func (k *kernel) phase(what string, n int) {
	start := time.Now()
	counts := map[string]int{}
	before := k.bad
	for range n {
		switch p := k.g.rng.IntN(20); {
		case p < 12:
			counts["access"]++
			k.access()
		case p < 15:
			counts["create"]++
			k.newContext("create", policydb.TypeTransition)
		case p < 16:
			counts["member"]++
			k.newContext("member", policydb.TypeMember)
		case p < 17:
			counts["relabel"]++
			k.newContext("relabel", policydb.TypeChange)
		case p < 19:
			counts["context"]++
			k.context()
		default:
			counts["validatetrans"]++
			k.validateTrans()
		}
	}
	k.t.Logf("%s: %d questions %v, %d differences, %s", what, n, counts, k.bad-before, time.Since(start).Round(time.Second))
}

// pair picks two contexts, often ones that a rule about new contexts is for.
func (k *kernel) pair() (a, b int) {
	a, b = k.g.rng.IntN(len(k.texts)), k.g.rng.IntN(len(k.texts))
	if k.g.rng.IntN(3) == 0 && a >= 400 {
		a &^= 1
		b = a + 1
	}
	return a, min(b, len(k.texts)-1)
}

func (k *kernel) access() {
	a, b := k.pair()
	class := k.g.rng.Uint32N(k.s.policy.Classes.Prim + 3)
	answer, err := k.ask("access", fmt.Sprintf("%s %s %d", k.texts[a], k.texts[b], class))
	got := "invalid"
	if k.contexts[a] != nil && k.contexts[b] != nil {
		d := k.s.Decide(k.contexts[a], k.contexts[b], policydb.ClassID(class))
		got = fmt.Sprintf("%x %x %x %x %x", d.Allowed, uint32(0xffffffff), d.AuditAllow, d.AuditDeny, d.Flags)
	}
	want := "invalid"
	if err == nil {
		// The kernel counts its policies; here there is one.
		words := strings.Fields(answer)
		want = strings.Join(append(words[:4], words[5]), " ")
	} else if !errors.Is(err, syscall.EINVAL) {
		k.t.Fatal(err)
	}
	if got != want {
		k.errf("access %s %s %d: got %s, the kernel says %s", k.texts[a], k.texts[b], class, got, want)
	}
}

// newContext asks for a context as a permissive kernel gives it: also one that
// is not valid.
func (k *kernel) newContext(file string, kind policydb.RuleKind) {
	a, b := k.pair()
	class := k.g.class()
	if classes := []string{"process", "file", "dir", "tcp_socket", "fifo_file", "unix_stream_socket"}; k.g.rng.IntN(2) == 0 {
		if c := k.s.Class(k.g.pick(classes)); c != 0 {
			class = uint32(c)
		}
	}
	question := fmt.Sprintf("%s %s %d", k.texts[a], k.texts[b], class)
	name := ""
	if ft := k.s.policy.FilenameTransitions; kind == policydb.TypeTransition && len(ft) > 0 && k.g.rng.IntN(2) == 0 {
		name = ft[k.g.rng.IntN(len(ft))].Name
		question += " " + url.QueryEscape(name)
	}
	want, err := k.ask(file, question)
	if err != nil && !errors.Is(err, syscall.EINVAL) {
		k.t.Fatal(err)
	}
	if k.contexts[a] == nil || k.contexts[b] == nil {
		if err == nil {
			k.errf("%s %s: invalid here, the kernel says %s", file, question, want)
		}
		return
	}
	var got string
	c, gerr := k.s.computeContext(kind, k.contexts[a], k.contexts[b], policydb.ClassID(class), name)
	var invalid *InvalidResultError
	switch {
	case gerr == nil:
		got = c.String()
	case errors.As(gerr, &invalid):
		got = invalid.Context
	}
	if err != nil {
		want = "an error"
		if invalid != nil && strings.Contains(invalid.Reason, "in common") {
			want = got
		}
	}
	if got != want {
		k.errf("%s %s: got %s, the kernel says %s (%v)", file, question, got, want, err)
	}
}

func (k *kernel) context() {
	text := k.g.context()
	if k.g.rng.IntN(3) == 0 {
		text = k.g.broken()
	}
	want, err := k.ask("context", text)
	if err != nil && !errors.Is(err, syscall.EINVAL) {
		k.t.Fatal(err)
	}
	got := ""
	if c, err := k.s.ParseContext(text); err == nil {
		got = c.String()
	}
	if got != want {
		k.errf("context %s: got %q, the kernel says %q", text, got, want)
	}
}

func (k *kernel) validateTrans() {
	a, b := k.pair()
	c := k.g.rng.IntN(len(k.texts))
	class := k.g.class()
	if file := k.s.Class("file"); k.g.rng.IntN(2) == 0 && file != 0 {
		class = uint32(file)
	}
	f, err := os.OpenFile(selinuxfs+"/validatetrans", os.O_WRONLY, 0)
	if err != nil {
		k.t.Fatal(err)
	}
	defer f.Close()
	_, err = f.Write([]byte(fmt.Sprintf("%s %s %d %s", k.texts[a], k.texts[b], class, k.texts[c])))
	want := "allowed"
	switch {
	case errors.Is(err, syscall.EPERM):
		want = "denied"
	case errors.Is(err, syscall.EINVAL):
		want = "invalid"
	case err != nil:
		k.t.Fatal(err)
	}
	got := "invalid"
	if k.contexts[a] != nil && k.contexts[b] != nil && k.contexts[c] != nil {
		got = "allowed"
		if err := k.s.ValidateTransition(k.contexts[a], k.contexts[b], k.contexts[c], policydb.ClassID(class)); err != nil {
			got = "denied"
		}
	}
	if got != want {
		k.errf("validatetrans %s %s %d %s: got %s, the kernel says %s", k.texts[a], k.texts[b], class, k.texts[c], got, want)
	}
}

// flipBooleans changes half of the booleans in the kernel and here.
func (k *kernel) flipBooleans() {
	values := map[string]bool{}
	for b := range k.s.policy.Booleans.All() {
		if k.g.rng.IntN(2) == 0 {
			continue
		}
		values[b.Name] = !b.State
		digit := "0"
		if !b.State {
			digit = "1"
		}
		if err := os.WriteFile(filepath.Join(selinuxfs, "booleans", b.Name), []byte(digit), 0); err != nil {
			k.t.Fatal(err)
		}
	}
	if err := os.WriteFile(selinuxfs+"/commit_pending_bools", []byte("1"), 0); err != nil {
		k.t.Fatal(err)
	}
	var err error
	if k.s, err = k.s.WithBooleans(values); err != nil {
		k.t.Fatal(err)
	}
	k.contexts = resolve(k.s, k.texts)
}
