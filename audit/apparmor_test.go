// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/internal/oracle"
)

// libapparmor prints a record as libapparmor's test driver does.
func libapparmor(file string, r AppArmorRecord) string {
	var b strings.Builder
	str := func(name, v string) {
		if v != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, v)
		}
	}
	num := func(name string, v, unset int64) {
		if v != unset {
			fmt.Fprintf(&b, "%s: %d\n", name, v)
		}
	}
	b.WriteString("START\nFile: " + file + "\n")
	str("Event type", "AA_RECORD_"+strings.ToUpper(r.Event.String()))
	str("Audit ID", r.AuditID)
	str("Operation", r.Operation)
	str("Mask", r.Requested)
	str("Denied Mask", r.Denied)
	num("fsuid", r.FSUID, -1)
	num("ouid", r.OUID, -1)
	str("Profile", r.Profile)
	str("Peer profile", r.PeerProfile)
	str("Peer", r.Peer)
	str("Name", r.Name)
	str("Command", r.Command)
	str("Name2", r.Name2)
	str("Namespace", r.Namespace)
	str("Attribute", r.Attribute)
	num("Task", r.Task, 0)
	num("Parent", r.Parent, 0)
	num("Token", r.MagicToken, 0)
	str("Info", r.Info)
	str("Peer info", r.PeerInfo)
	num("ErrorCode", r.ErrorCode, 0)
	num("PID", r.PID, 0)
	num("Peer PID", r.PeerPID, 0)
	str("Net Addr", r.Addr)
	str("Peer Addr", r.PeerAddr)
	str("Network family", r.Family)
	str("Socket type", r.SockType)
	str("Protocol", r.Protocol)
	str("Local addr", r.LocalAddr)
	str("Foreign addr", r.ForeignAddr)
	num("Local port", r.LocalPort, 0)
	num("Foreign port", r.ForeignPort, 0)
	str("DBus bus", r.Bus)
	str("DBus path", r.Path)
	str("DBus interface", r.Interface)
	str("DBus member", r.Member)
	str("Signal", r.Signal)
	str("FS Type", r.FSType)
	str("Flags", r.Flags)
	str("Src name", r.SrcName)
	str("Execpath", r.ExecPath)
	str("Class", r.Class)
	num("Epoch", r.Epoch, 0)
	num("Audit subid", int64(r.Serial), 0)
	return b.String()
}

// suiteLogs is the folder of libapparmor's records: all of them in a source tree
// that $APPARMOR_SOURCE names, else those of the corpus.
func suiteLogs(t *testing.T) string {
	if src := os.Getenv("APPARMOR_SOURCE"); src != "" {
		return filepath.Join(src, "libraries", "libapparmor", "testsuite", "test_multi")
	}
	return oracle.Corpus(t, "apparmor/logs")
}

// otherFields are records that are read to other fields than the suite's, with the
// reason.
var otherFields = map[string]string{
	"ptrace_garbage_lp1689667_1.in": `target="" names no target`,
	"status-filesystem-enabled.in":  "a line with the file name that grep puts in front is read all the same",
}

// TestConfirmRecords reads the records of libapparmor's test suite to the same
// fields.
func TestConfirmRecords(t *testing.T) {
	dir := suiteLogs(t)
	files, err := filepath.Glob(filepath.Join(dir, "*.in"))
	if err != nil || len(files) == 0 {
		t.Fatal("no records", err)
	}
	wrong := 0
	for _, f := range files {
		in, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		// The driver reads no more of a file.
		in = in[:min(len(in), 1023)]
		want, err := os.ReadFile(strings.TrimSuffix(f, ".in") + ".out")
		if err != nil {
			t.Fatal(err)
		}
		rec, _ := AppArmor(string(in))
		name := filepath.Base(f)
		got := libapparmor(name, rec)
		equal := strings.TrimSpace(got) == strings.TrimSpace(string(want))
		switch reason, known := otherFields[name]; {
		case equal && known:
			t.Errorf("%s: no longer differs (%s)", name, reason)
		case !equal:
			wrong++
			if !known {
				t.Errorf("%s:\n%s\ngot\n%s\nwant\n%s", name, in, got, want)
			}
		}
	}
	t.Logf("%d records, %d differ", len(files), wrong)
}

// otherRules are records for which the rule differs from the one of the suite,
// with the reason.
var otherRules = map[string]string{}

// bodies are the rules of a profile in a form that can be compared.
func bodies(t *testing.T, name string, f *apparmor.File) map[string][]string {
	t.Helper()
	p, diags := apparmor.Resolve(f, apparmor.Env{})
	if diags.HasErrors() {
		t.Fatalf("%s: %v", name, diags)
	}
	out := map[string][]string{}
	for _, pr := range p.Profiles {
		rules := []string{fmt.Sprint("caps ", pr.Caps)}
		for _, r := range pr.Rules {
			if !r.Implied {
				rules = append(rules, fmt.Sprintf("%T %+v %v %v %v", r.Body, reflect.ValueOf(r.Body).Elem().Interface(), r.Mode, r.Audit, r.Owner))
			}
		}
		out[pr.Name] = rules
	}
	return out
}

// TestConfirmSuggestions gives the rules that upstream's tools make of the same
// records.
func TestConfirmSuggestions(t *testing.T) {
	dir := suiteLogs(t)
	files, err := filepath.Glob(filepath.Join(dir, "*.profile"))
	if err != nil || len(files) == 0 {
		t.Fatal("no profiles", err)
	}
	same := 0
	for _, f := range files {
		base := strings.TrimSuffix(f, ".profile")
		name := filepath.Base(base)
		in, err := os.ReadFile(base + ".in")
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		want, diags := apparmor.Parse(f, text)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		rec, _ := AppArmor(string(in))
		s, ok := rec.Suggest()
		if !ok {
			t.Errorf("%s: no suggestion for\n%s", name, in)
			continue
		}
		equal := reflect.DeepEqual(bodies(t, name, want), bodies(t, name, reparse(t, s.File())))
		reason, known := otherRules[name]
		switch {
		case equal && known:
			t.Errorf("%s: no longer differs (%s)", name, reason)
		case equal:
			same++
		case !known:
			var b strings.Builder
			_ = apparmor.Print(&b, s.File())
			t.Errorf("%s: %s\ngot\n%s\nwant\n%s", name, in, b.String(), text)
		}
	}
	t.Logf("%d of %d rules are the same", same, len(files))
}

// reparse takes a built tree through text, as a person would.
func reparse(t testing.TB, f *apparmor.File) *apparmor.File {
	t.Helper()
	var b strings.Builder
	if err := apparmor.Print(&b, f); err != nil {
		t.Fatal(err)
	}
	g, diags := apparmor.Parse("suggestion", []byte(b.String()))
	if diags.HasErrors() {
		t.Fatalf("%v\n%s", diags, b.String())
	}
	return g
}

func FuzzAppArmor(f *testing.F) {
	f.Add(`type=AVC msg=audit(1.2:3): apparmor="DENIED" operation="open" profile="/a" name="/b" requested_mask="r" denied_mask="r" fsuid=0 ouid=0`)
	f.Add(`type=USER_AVC msg=audit(1.2:3): pid=1 msg='apparmor="DENIED" operation="dbus_bind" bus="system" name="a.b" mask="bind" profile="x"'`)
	f.Add(`audit: type=1400 audit(1.2:3): apparmor="ALLOWED" operation="connect" class="net" profile=41 family="unix" sock_type="stream" denied="send" peer_addr=none`)
	f.Fuzz(func(t *testing.T, line string) {
		rec, ok := AppArmor(line)
		if !ok {
			return
		}
		FromAppArmor(rec, line)
		s, ok := rec.Suggest()
		if !ok || s.Rule == nil {
			return
		}
		// Whatever a log line holds, the suggestion is one rule that resolves.
		p, diags := apparmor.Resolve(reparse(t, s.File()), apparmor.Env{})
		if diags.HasErrors() {
			t.Fatalf("%q: %v", line, diags)
		}
		rules := 0
		for _, pr := range p.Profiles {
			for _, r := range pr.Rules {
				if !r.Implied {
					rules++
				}
			}
		}
		if rules != 1 {
			t.Fatalf("%q: %d rules", line, rules)
		}
	})
}
