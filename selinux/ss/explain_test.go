// SPDX-License-Identifier: Apache-2.0

package ss

import (
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/selinuxtest"
	"github.com/palisade-sec/palisade/selinux/policydb"
)

// explainConf is a policy with one reason of each kind.
const explainConf = `
class process
class file
class tcp_socket
sid kernel
sid unlabeled
common fs { ioctl read write relabelto getattr append execute }
class process { transition dyntransition signal }
class file inherits fs
class tcp_socket { create }
sensitivity s0;
dominance { s0 }
category c0; category c1; category c2; category c3; category c4;
level s0:c0.c4;
mlsconstrain file { read write append } ( h1 dom h2 or t1 != mcs_type );
mlsconstrain file { write append } ( l2 eq h2 and ( h1 dom h2 or t1 != mcs_type ) );
attribute mcs_type;
attribute domain;
type container_t, domain, mcs_type;
type container_file_t;
type etc_t;
type host_t, domain;
type app_t, domain;
type app_child_t, domain;
type unlabeled_t;
typebounds app_t app_child_t;
bool container_reads_etc false;
bool second false;
allow container_t container_file_t : file { read write append ioctl getattr };
allow host_t { container_file_t etc_t } : file { read write };
allow host_t app_t : process { transition signal };
allow app_t etc_t : file read;
allow app_child_t etc_t : file read;
allowxperm container_t container_file_t : file ioctl { 0x5401 };
dontaudit container_t etc_t : file getattr;
if (container_reads_etc && ! second) { allow container_t etc_t : file read; }
role system_r;
role app_r;
role system_r types { container_t host_t };
role app_r types { app_t app_child_t };
user system_u roles { system_r app_r } level s0 range s0 - s0:c0.c4;
user other_u roles { system_r app_r } level s0 range s0 - s0:c0.c4;
constrain process signal ( u1 == u2 );
sid kernel system_u:system_r:host_t:s0
sid unlabeled system_u:object_r:unlabeled_t:s0
fs_use_xattr ext4 system_u:object_r:etc_t:s0;
`

func explainServer(t *testing.T) *Server {
	t.Helper()
	data, ok := selinuxtest.Compile(t, []byte(explainConf), 33, "-M")
	if !ok {
		t.Fatal("checkpolicy refuses the policy")
	}
	p, err := policydb.Load(data)
	if err != nil {
		t.Fatal(err)
	}
	// checkpolicy would not write a rule that the bounds must mask.
	r := slices.IndexFunc(p.Rules, func(r policydb.Rule) bool {
		return r.Kind() == policydb.Allow && p.TypeName(r.Source) == "app_child_t" && p.TypeName(r.Target) == "etc_t"
	})
	p.Rules[r].Data |= p.Classes.ByName("file").PermissionMask("write")
	for i := range p.ObjectContexts.InitialSIDs {
		if p.TypeName(p.ObjectContexts.InitialSIDs[i].Context.Type) == "unlabeled_t" {
			p.ObjectContexts.InitialSIDs[i].SID = 3
		}
	}
	return New(p)
}

func TestConfirmExplain(t *testing.T) {
	s := explainServer(t)
	const (
		container = "system_u:system_r:container_t:s0:c1,c2"
		own       = "system_u:object_r:container_file_t:s0:c1,c2"
		foreign   = "system_u:object_r:container_file_t:s0:c3,c4"
		etc       = "system_u:object_r:etc_t:s0"
		host      = "system_u:system_r:host_t:s0"
		app       = "system_u:app_r:app_t:s0"
	)
	for _, tt := range []struct {
		source, target, class, perm string
		cause                       Cause
		text                        string   // part of the text
		fixes                       []string // kind and the rule, context or text of each
	}{
		{container, own, "file", "read", CauseRule, "allowed by allow container_t container_file_t:file { ioctl read write getattr append };", nil},
		{
			container, foreign, "file", "read", CauseConstraint,
			"the source's high level s0:c1,c2 does not dominate the target's high level s0:c3,c4 (it lacks c3,c4)",
			[]string{
				"relabel system_u:object_r:container_file_t:s0:c1,c2", "source system_u:system_r:container_t:s0:c3,c4",
			},
		},
		{
			container, "system_u:object_r:container_file_t:s0-s0:c1", "file", "append", CauseConstraint,
			"the target's low level s0 differs from the target's high level s0:c1",
			[]string{"relabel system_u:object_r:container_file_t:s0:c1,c2"},
		},
		{
			container, etc, "file", "read", CauseBoolean, "the rule that allows container_t to read etc_t:file is off: allow container_t etc_t:file read; [ container_reads_etc && ! second ]:true",
			[]string{"boolean set container_reads_etc on"},
		},
		{
			container, etc, "file", "write", CauseNoRule, "no rule allows container_t to write etc_t:file",
			[]string{"relabel system_u:object_r:container_file_t:s0", "rule allow container_t etc_t:file write;"},
		},
		{container, "system_u:object_r:etc_t:s0:c3", "file", "write", CauseNoRule, "no rule allows", nil},
		{container, "system_u:object_r:unlabeled_t:s0", "file", "read", CauseNoRule, "no valid label", []string{"relabel label the target"}},
		{container, container, "tcp_socket", "create", CauseNoRule, "no rule", []string{"rule allow container_t self:tcp_socket create;"}},
		{host, app, "process", "transition", CauseRoleAllow, "role system_r may not change to role app_r", []string{"role allow system_r app_r;"}},
		{
			host, "other_u:app_r:app_t:s0", "process", "signal", CauseConstraint, "the users differ, system_u and other_u",
			[]string{"relabel system_u:app_r:app_t:s0"},
		},
		{
			"system_u:app_r:app_child_t:s0", etc, "file", "write", CauseBounds, "app_child_t is bounded by app_t, which may not write etc_t:file",
			[]string{"rule allow app_t etc_t:file write;"},
		},
		{container, own, "nonsense", "read", CauseUnknownClass, "the policy has no class nonsense; its handle_unknown setting is deny", []string{"policy load a policy"}},
		{container, own, "file", "nonsense", CauseUnknownPerm, "class file has no permission nonsense", []string{"policy load a policy"}},
	} {
		source, target := mustParse(t, s, tt.source), mustParse(t, s, tt.target)
		x := s.Explain(source, target, tt.class, tt.perm)
		if x.Cause != tt.cause || !strings.Contains(x.Text, tt.text) || x.Allowed != (tt.cause == CauseRule) {
			t.Errorf("%s %s %s %s:\n  %s (allowed %t): %s\n  want %s: %s", tt.source, tt.target, tt.class, tt.perm, x.Cause, x.Allowed, x.Text, tt.cause, tt.text)
		}
		var got []string
		for _, f := range x.Fixes {
			got = append(got, string(f.Kind)+" "+firstOf(f.Rule, f.Context, f.Text))
		}
		if len(got) < len(tt.fixes) || (len(tt.fixes) == 0) != (len(got) == 0) {
			t.Errorf("%s %s %s %s: fixes %q, want %q", tt.source, tt.target, tt.class, tt.perm, got, tt.fixes)
			continue
		}
		for i, want := range tt.fixes {
			if !strings.HasPrefix(got[i], want) {
				t.Errorf("%s %s %s %s: fix %d is %q, want %q", tt.source, tt.target, tt.class, tt.perm, i, got[i], want)
			}
		}
	}
	x := s.Explain(mustParse(t, s, container), mustParse(t, s, "system_u:object_r:etc_t:s0:c3"), "file", "read")
	if x.Cause != CauseBoolean || len(x.Then) != 1 || len(x.Fixes) != 0 {
		t.Errorf("a boolean that does not help: %+v", x)
	}
	x = s.Explain(mustParse(t, s, container), mustParse(t, s, etc), "file", "getattr")
	if !x.DontAudit {
		t.Errorf("dontaudit not seen: %+v", x)
	}
	x = s.ExplainIoctl(mustParse(t, s, container), mustParse(t, s, own), "file", 0x5402)
	if x.Cause != CauseXPerm || len(x.Fixes) != 1 || x.Fixes[0].Rule != "allowxperm container_t container_file_t:file ioctl 0x5402;" {
		t.Errorf("ioctl 0x5402: %+v", x)
	}
	if x = s.ExplainIoctl(mustParse(t, s, container), mustParse(t, s, own), "file", 0x5401); !x.Allowed {
		t.Errorf("ioctl 0x5401: %+v", x)
	}
}

func firstOf(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}

func mustParse(t *testing.T, s *Server, text string) *Context {
	t.Helper()
	c, err := s.ParseContext(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestConfirmExplainAgrees explains random denials of Debian's policy: what is
// explained as allowed is what Decide allows, a proposed rule never exists, and a
// proposed label or boolean cures.
func TestConfirmExplainAgrees(t *testing.T) {
	for _, flavour := range []string{"default", "mls"} {
		s := loadServer(t, debianPolicy(t, flavour))
		g := newGenerator(s.policy, 17)
		contexts := slices.DeleteFunc(resolve(s, g.contexts(800)), func(c *Context) bool { return c == nil })
		causes := map[Cause]int{}
		for range 8000 {
			a, b := contexts[g.rng.IntN(len(contexts))], contexts[g.rng.IntN(len(contexts))]
			class := s.policy.Classes.ByValue(g.class())
			if c, grant := g.granted(s, a); c != nil && g.rng.IntN(2) == 0 {
				b, class = c, s.policy.Classes.ByValue(uint32(grant))
			}
			names := class.PermissionNames(class.AllPermissions())
			d := s.Decide(a, b, class.ID())
			if len(names) == 0 {
				continue
			}
			perm := g.pick(names)
			x := s.Explain(a, b, class.Name, perm)
			causes[x.Cause]++
			if x.Allowed != (d.Allowed&class.PermissionMask(perm) != 0) || x.Text == "" {
				t.Fatalf("%s %s %s %s: explained as allowed %t: %s", a, b, class.Name, perm, x.Allowed, x.Text)
			}
			for _, f := range x.Fixes {
				checkFix(t, s, a, b, class, perm, f)
			}
		}
		t.Logf("%s: %v", flavour, causes)
		for _, c := range []Cause{CauseRule, CauseNoRule, CauseConstraint} {
			if causes[c] < 20 {
				t.Errorf("%s: only %d times %s", flavour, causes[c], c)
			}
		}
	}
}

// granted returns a context that rules allow the source something to, by class.
func (g *generator) granted(s *Server, source *Context) (*Context, policydb.ClassID) {
	skip := g.rng.IntN(200)
	for grant := range s.Grants(source.typ) {
		if skip--; skip > 0 {
			continue
		}
		types := s.policy.TypesOf(grant.Target)
		if len(types) == 0 {
			continue
		}
		text := g.pick(g.users) + ":object_r:" + s.policy.TypeName(types[g.rng.IntN(len(types))]) + ":" + g.pick(g.levels)
		if c, err := s.ParseContext(text); err == nil {
			return c, grant.Class
		}
	}
	return nil, 0
}

func checkFix(t *testing.T, s *Server, a, b *Context, class *policydb.Class, perm string, f Fix) {
	t.Helper()
	var err error
	switch f.Kind {
	case FixBoolean:
		if s, err = s.WithBooleans(f.Booleans); err != nil {
			t.Fatal(err)
		}
		a, b = mustParse(t, s, a.String()), mustParse(t, s, b.String())
	case FixRelabel:
		if f.Context == "" {
			return
		}
		b = mustParse(t, s, f.Context)
	case FixSource:
		a = mustParse(t, s, f.Context)
	default:
		return
	}
	if s.Decide(a, b, class.ID()).Allowed&class.PermissionMask(perm) == 0 {
		t.Fatalf("%s %s %s %s: the fix %+v does not help", a, b, class.Name, perm, f)
	}
}
