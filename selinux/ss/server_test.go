// SPDX-License-Identifier: Apache-2.0

package ss

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/palisade-sec/palisade/selinux/policydb"
)

func seedServer(t *testing.T) *Server {
	t.Helper()
	return loadServer(t, seeds(t)[0]) // every-33
}

// TestParseContextErrors says for every kind of wrong context where it is wrong.
func TestParseContextErrors(t *testing.T) {
	s := seedServer(t)
	for _, tt := range []struct {
		text   string
		offset int
		reason string
	}{
		{"", -1, "expected user:role:type"},
		{"system_u", -1, "expected user:role:type"},
		{"system_u:object_r", -1, "expected user:role:type"},
		{"sistem_u:object_r:data_t:s0", 0, `the policy has no user "sistem_u"`},
		{"system_u:objekt_r:data_t:s0", 9, `the policy has no role "objekt_r"`},
		{"system_u:object_r:dota_t:s0", 18, `the policy has no type "dota_t"`},
		{"system_u:object_r:domain:s0", 18, "domain is an attribute, not a type"},
		{"system_u:object_r:data_t", 24, "expected a level"},
		{"system_u:object_r:data_t:", 25, `the policy has no sensitivity ""`},
		{"system_u:object_r:data_t:s9", 25, `the policy has no sensitivity "s9"`},
		{"system_u:object_r:data_t:s0:", 28, `the policy has no category ""`},
		{"system_u:object_r:data_t:s0:c1,c9", 31, `the policy has no category "c9"`},
		{"system_u:object_r:data_t:s0:c1.c9", 31, `the policy has no category "c9"`},
		{"system_u:object_r:data_t:s0:c2.c1", 28, "the categories c2.c1 do not ascend"},
		{"system_u:object_r:data_t:s0:c1.c1", 28, "the categories c1.c1 do not ascend"},
		{"system_u:object_r:data_t:s0-s0-", 28, `the policy has no sensitivity "s0-"`},
		{"system_u:object_r:data_t:s1-s0", -1, "the high level does not dominate the low one"},
		{"system_u:object_r:data_t:s2:c4", -1, "sensitivity s2 may not have all of the categories"},
		{"system_u:system_r:data_t:s0", -1, "role system_r may not have type data_t"},
		{"plain_u:system_r:app_t:s0", -1, "user plain_u may not have role system_r"},
		{"plain_u:user_r:app_t:s0:c1", -1, "user plain_u may have s0 only"},
		{strings.Repeat("x", 5000), 4096, "longer than 4096 bytes"},
	} {
		c, err := s.ParseContext(tt.text)
		var ce *ContextError
		if c != nil || !errors.As(err, &ce) || ce.Offset != tt.offset || !strings.Contains(ce.Reason, tt.reason) {
			t.Errorf("%.40q: %v; want offset %d, %s", tt.text, err, tt.offset, tt.reason)
		}
		if err != nil && len(err.Error()) > 500 {
			t.Errorf("%.40q: a long error: %v", tt.text, err)
		}
	}
	_, err := s.ParseContext("system_u:object_r:dota_t:s0")
	if err == nil || !strings.Contains(err.Error(), "did you mean data_t?") {
		t.Errorf("no advice: %v", err)
	}
	for text, want := range map[string]string{
		"system_u:object_r:other_t:lowest:zero": "system_u:object_r:data_alias_t:s0:c0", // aliases
		"system_u:object_r:data_t:s0-s0":        "system_u:object_r:data_t:s0",
		"system_u:object_r:data_t:s0:c3,c1,c2":  "system_u:object_r:data_t:s0:c1.c3",
		"system_u:object_r:data_t:s0:c2,c1":     "system_u:object_r:data_t:s0:c1,c2",
	} {
		c, err := s.ParseContext(text)
		if err != nil || c.String() != want {
			t.Errorf("%s: %v, %v; want %s", text, c, err, want)
		}
	}
}

func TestUnknownClass(t *testing.T) {
	p, err := policydb.Load(seeds(t)[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		config  uint32
		allowed uint32
	}{{0, 0}, {policydb.ConfigRejectUnknown, 0}, {policydb.ConfigAllowUnknown, ^uint32(0)}} {
		q := *p
		q.Config = policydb.ConfigMLS | tt.config
		s := New(&q)
		a := mustParse(t, s, "system_u:system_r:app_t:s0")
		if d := s.Decide(a, a, 0); d.Allowed != tt.allowed {
			t.Errorf("config %d: class 0 allows %x", tt.config, d.Allowed)
		}
		// A number that is too high is no unknown class: the kernel allows nothing.
		if d := s.Decide(a, a, 500); d.Allowed != 0 {
			t.Errorf("config %d: class 500 allows %x", tt.config, d.Allowed)
		}
		if x := s.Explain(a, a, "nosuch", "read"); x.Cause != CauseUnknownClass || x.Allowed != (tt.allowed != 0) {
			t.Errorf("config %d: %+v", tt.config, x)
		}
	}
}

func TestPermissiveAndNeverAudit(t *testing.T) {
	p, err := policydb.Load(seeds(t)[0])
	if err != nil {
		t.Fatal(err)
	}
	quiet := p.Types.ByName("quiet_t").Value
	p.NeverAudit = policydb.BitmapOf(quiet)
	s := New(p)
	a, b := mustParse(t, s, "system_u:system_r:quiet_t:s0"), mustParse(t, s, "system_u:object_r:data_t:s0")
	if d := s.Decide(a, b, s.Class("file")); d.Allowed != ^uint32(0) || d.Flags != FlagPermissive|FlagNeverAudit {
		t.Errorf("permissive and never audited: %s", describe(d))
	}
	if x := s.Explain(a, b, "file", "write"); !x.Allowed || x.Cause != CausePermissiveMute {
		t.Errorf("%+v", x)
	}
}

func TestWithBooleans(t *testing.T) {
	s := seedServer(t)
	if _, err := s.WithBooleans(map[string]bool{"nosuch": true, "other": false}); err == nil || !strings.Contains(err.Error(), `["nosuch" "other"]`) {
		t.Errorf("unknown booleans: %v", err)
	}
	on, err := s.WithBooleans(map[string]bool{"app_reads_secret": true})
	if err != nil {
		t.Fatal(err)
	}
	a, b := mustParse(t, s, "system_u:system_r:app_t:s0"), mustParse(t, s, "system_u:object_r:data_t:s0")
	class := s.Class("file")
	before, err1 := s.Transition(a, b, class, "")
	_, err2 := on.Transition(a, b, class, "")
	var invalid *InvalidResultError
	// The conditional type_transition gives secret_t, which system_r may not have.
	if err1 == nil || !errors.As(err2, &invalid) || !strings.Contains(invalid.Context, "secret_t") {
		t.Errorf("%v, %v; %v", before, err1, err2)
	}
	if v, ok := on.Boolean("app_reads_secret"); !v || !ok {
		t.Errorf("boolean: %t, %t", v, ok)
	}
	if v, _ := s.Boolean("app_reads_secret"); v {
		t.Error("the first server changed")
	}
}

func TestExtendedPermissions(t *testing.T) {
	s := seedServer(t)
	app := mustParse(t, s, "system_u:system_r:app_t:s0")
	data, secret := mustParse(t, s, "system_u:object_r:data_t:s0"), mustParse(t, s, "system_u:object_r:secret_t:s0")
	file := s.Class("file")
	for _, tt := range []struct {
		target *Context
		number uint16
		want   XDecision
	}{
		{data, 0x5401, XDecision{Restricted: true, Allowed: true, AuditAllow: true}},
		{data, 0x5402, XDecision{Restricted: true}},
		{data, 0x5403, XDecision{Restricted: true, Allowed: true}},
		{data, 0x5410, XDecision{Restricted: true, Allowed: true}},
		{data, 0x5411, XDecision{Restricted: true}},
		{data, 0x8900, XDecision{Restricted: true, Allowed: true}},
		{data, 0x8aff, XDecision{Restricted: true, Allowed: true}},
		{data, 0x8b00, XDecision{Restricted: true}},
		{secret, 0x5402, XDecision{Restricted: true, DontAudit: true}},
	} {
		if got := s.DecideX(app, tt.target, file, Ioctl, tt.number); got != tt.want {
			t.Errorf("%s 0x%x: %+v, want %+v", tt.target, tt.number, got, tt.want)
		}
	}
	if got := s.DecideX(app, app, s.Class("tcp_socket"), Ioctl, 7); got != (XDecision{Allowed: true}) {
		t.Errorf("a class without extended permissions: %+v", got)
	}
}

func TestForeignContexts(t *testing.T) {
	s, other := seedServer(t), seedServer(t)
	a, b := mustParse(t, s, "system_u:system_r:app_t:s0"), mustParse(t, other, "system_u:object_r:data_t:s0")
	if d := s.Decide(a, b, s.Class("file")); d.Allowed != 0 {
		t.Errorf("a context of another policy is allowed %x", d.Allowed)
	}
	if _, err := s.Transition(a, b, s.Class("file"), ""); !errors.Is(err, ErrForeignContext) {
		t.Errorf("transition: %v", err)
	}
	if err := s.ValidateTransition(a, b, a, s.Class("file")); !errors.Is(err, ErrForeignContext) {
		t.Errorf("validatetrans: %v", err)
	}
}

// TestConcurrent has many goroutines make the same decisions at once.
func TestConcurrent(t *testing.T) {
	s := seedServer(t)
	g := newGenerator(s.policy, 3)
	var contexts []*Context
	for len(contexts) < 60 {
		if c, err := s.ParseContext(g.context()); err == nil {
			contexts = append(contexts, c)
		}
	}
	fresh := New(s.policy)
	want := map[[3]int]Decision{}
	for i, a := range contexts {
		for j, b := range contexts {
			for class := 1; class <= int(s.policy.Classes.Prim); class++ {
				want[[3]int{i, j, class}] = fresh.decide(a, b, policydb.ClassID(class))
			}
		}
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for k, d := range want {
				if got := s.Decide(contexts[k[0]], contexts[k[1]], policydb.ClassID(k[2])); got != d {
					t.Errorf("%v: %s, want %s", k, describe(got), describe(d))
					return
				}
			}
		})
	}
	wg.Wait()
}
