// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/compile"
	"github.com/palisade-sec/palisade/apparmor/decide"
	"github.com/palisade-sec/palisade/apparmor/securityfs"
)

// Cache keeps answers from one container to the next.
type Cache interface {
	Load(key string) ([]byte, bool)
	Store(key string, value []byte)
}

// Covering is the shape, s or a tighter one, under which a container can do nothing
// that the loaded profile other would deny it; if there is none, why says what. Both are asked as
// automata: other may have been written by anybody. What the host may do to the
// container (signals and debugging from outside) is left out of the comparison.
func Covering(kernel Kernel, s Shape, other string, cache Cache) (_ Shape, ok bool, why string, err error) {
	raw, err := kernel.RawData(other)
	if errors.Is(err, securityfs.ErrNotLoaded) {
		return s, true, "", nil // nothing can be started under it
	} else if err != nil {
		return s, false, "", err
	}
	for _, t := range tighter(s) {
		var more string
		if ok, more, err = covers(kernel, raw, t, other, cache); ok || err != nil {
			return t, ok, "", err
		}
		if why == "" {
			why = more
		}
	}
	return s, false, why, nil
}

// tighter are the shapes to try: Podman's profile does not let a container's
// processes look at each other.
func tighter(s Shape) []Shape {
	blind := s
	blind.Blind = true
	return []Shape{s, blind}
}

func covers(kernel Kernel, raw []byte, s Shape, other string, cache Cache) (ok bool, why string, err error) {
	key, err := coversKey(raw, other, s.Text(other))
	if err != nil {
		return false, "", err
	}
	if cache != nil {
		if why, found := cache.Load(key); found {
			return len(why) == 0, string(why), nil
		}
	}
	features, err := kernel.Features()
	if err != nil {
		return false, "", err
	}
	if why, err = allowsMore(raw, s, other, features); err != nil {
		return false, "", err
	}
	if cache != nil {
		cache.Store(key, []byte(why))
	}
	return why == "", why, nil
}

func coversKey(raw []byte, name string, text []byte) (string, error) {
	// Another build may compile or compare differently.
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "covers %q %d %d %d\n", name, self.Size(), self.ModTime().UnixNano(), len(raw))
	sum.Write(raw)
	sum.Write(text)
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// allowsMore says what a shape's profile allows and the profile of the name in raw does
// not; empty when nothing.
func allowsMore(raw []byte, s Shape, name string, kernel *apparmor.Features) (string, error) {
	loaded, err := blob.Decode(raw)
	if err != nil {
		return "", err
	}
	var theirs *blob.Profile
	for _, l := range loaded {
		if l.Name == name {
			theirs = l
		}
	}
	if theirs == nil {
		return "", fmt.Errorf("AppArmor profile %s: its policy does not hold it", name)
	}
	resolved, err := resolve(s.Text(name), name, kernel)
	if err != nil {
		return "", err
	}
	for _, rp := range resolved.Profiles {
		rp.Rules = outgoing(rp.Rules, name)
	}
	compiled, diags := compile.New(compile.Options{Kernel: kernel}).Compile(resolved)
	if err := diags.Err(); err != nil {
		return "", err
	}
	ours := compiled.Profiles[0].Blob
	if more := ours.Caps.Allow &^ theirs.Caps.Allow; more != 0 {
		return fmt.Sprintf("ours has the capabilities %#x in addition", more), nil
	}
	changes, err := decide.DiffProfiles(theirs, ours)
	if err != nil {
		return "", err
	}
	for _, c := range changes {
		switch {
		case c.Gained != 0:
			return "of ours, " + c.Text, nil
		case c.Kind == "flags", c.Kind == "rlimits", strings.HasPrefix(c.Text, "exec of "):
			return "ours differs in " + c.Kind + ": " + c.Text, nil
		}
	}
	return "", nil
}

const everything = apparmor.MayExec | apparmor.MayRead | apparmor.MayWrite | apparmor.MayAppend | apparmor.MayLink | apparmor.MayLock | apparmor.MayMmap

// outgoing leaves out the rules that only let others do something to the
// container, and has it know itself under its name alone.
func outgoing(rules []*apparmor.ResolvedRule, name string) []*apparmor.ResolvedRule {
	const (
		receive = 4      // of a signal
		suffer  = 8 | 16 // tracedby, readby
	)
	self := "{" + apparmor.Exactly(name) + "," + apparmor.Exactly(name) + "//&unconfined}"
	var out []*apparmor.ResolvedRule
	for _, r := range rules {
		n := *r
		switch b := r.Body.(type) {
		case *apparmor.SignalBody:
			if b.Perms == receive {
				continue
			}
			own := *b
			if own.Peer.Value == self {
				own.Peer.Value = apparmor.Exactly(name)
			}
			n.Body = &own
		case *apparmor.PtraceBody:
			if b.Perms&^suffer == 0 {
				continue
			}
			own := *b
			if own.Peer.Value == self {
				own.Peer.Value = apparmor.Exactly(name)
			}
			n.Body = &own
		}
		out = append(out, &n)
	}
	// The kernel asks with paths in which no slash follows another.
	for _, path := range []string{"/[/]{,**}", "/**[/][/]{,**}"} {
		out = append(out, &apparmor.ResolvedRule{
			ID: len(out), Mode: apparmor.ModeDeny, Audit: apparmor.AuditQuiet, Body: &apparmor.FileBody{Path: path, Perms: everything},
		})
	}
	return out
}
