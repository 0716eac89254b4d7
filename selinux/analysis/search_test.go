// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/selinux/container"
	"github.com/palisade-sec/palisade/selinux/policydb"
)

// defaultPolicy is Debian's policy with the container module.
func defaultPolicy(tb testing.TB) (path string, p *policydb.Policy) {
	tb.Helper()
	path = debian.Policy(tb, "default", map[string][]byte{container.Name: container.Module()}).Policy
	return path, load(tb, path)
}

func load(tb testing.TB, path string) *policydb.Policy {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	p, err := policydb.Load(b)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

var kinds = map[string]policydb.RuleKind{
	"--allow": policydb.Allow, "--allowxperm": policydb.AllowX, "--auditallow": policydb.AuditAllow, "--auditallowxperm": policydb.AuditAllowX,
	"--dontaudit": policydb.DontAudit, "--dontauditxperm": policydb.DontAuditX,
	"-T": policydb.TypeTransition, "--type_change": policydb.TypeChange, "--type_member": policydb.TypeMember,
}

// query reads the arguments of sesearch as the command line does.
func query(tb testing.TB, args []string) Query {
	tb.Helper()
	var q Query
	for i := 0; i < len(args); i++ {
		value := func() string { i++; return args[i] }
		switch a := args[i]; a {
		case "-A":
			q.Kinds = append(q.Kinds, policydb.Allow, policydb.AllowX)
		case "--role_allow":
			q.RoleAllows = true
		case "--role_trans":
			q.RoleTransitions = true
		case "--range_trans":
			q.RangeTransitions = true
		case "-s":
			q.Source = value()
		case "-t":
			q.Target = value()
		case "-c":
			q.Classes = strings.Split(value(), ",")
		case "-p":
			q.Permissions = strings.Split(value(), ",")
		case "-b":
			q.Booleans = strings.Split(value(), ",")
		case "-D":
			q.Default = value()
		case "-ds":
			q.SourceDirect = true
		case "-dt":
			q.TargetDirect = true
		case "-rs":
			q.SourceRegexp = true
		case "-rt":
			q.TargetRegexp = true
		case "-rc":
			q.ClassRegexp = true
		case "-rd":
			q.DefaultRegexp = true
		case "-rb":
			q.BoolRegexp = true
		case "-ep":
			q.PermsEqual = true
		case "-Sp":
			q.PermsSubset = true
		case "-eb":
			q.BoolsEqual = true
		default:
			k, ok := kinds[a]
			if !ok {
				tb.Fatalf("argument %s", a)
			}
			q.Kinds = append(q.Kinds, k)
		}
	}
	return q
}

// searches are run by sesearch and by Search; the output must be the same.
var searches = []string{
	"-A -s container_t",
	"-A -s container_t -t container_file_t",
	"-A -s container_t -t container_file_t -c file,dir",
	"-A -s svirt_t -t svirt_image_t -c file -p write",
	"-A -s svirt_t -p entrypoint",
	"-A -s virt_domain -ds",
	"-A -t file_type -dt -c file -p relabelto",
	"-A -s ^virt.*_t$ -rs -t etc_t",
	"-A -s domain -t etc_t",
	"-A -t shadow_t -c file -p read,write -Sp",
	"-A -t shadow_t -c file -p getattr,open,read -ep",
	"-A -c lnk_.* -rc -s init_t -t etc_t",
	"-A -b allow_ptrace",
	"-A -b global_ssp,allow_ptrace",
	"-A -b allow_ptrace -eb",
	"-A -b ^virt_ -rb",
	"-A -c capability -p sys_module",
	"--dontaudit -s container_t",
	"--dontaudit -t shadow_t",
	"--auditallow",
	"-T -s init_t",
	"-T -s init_t -c process",
	"-T -D container_file_t",
	"-T -D ^svirt -rd",
	"-T -s udev_t",
	"-T -t tmp_t -c dir",
	"--type_change -s sshd_t",
	"--type_member",
	"--role_allow",
	"--role_allow -s system_r",
	"--role_trans -s sysadm_r",
	"--range_trans",
	"--range_trans -s init_t",
}

func TestConfirmSearch(t *testing.T) {
	sesearch := oracle.Tool(t, "sesearch", "apt: setools")
	path, p := defaultPolicy(t)
	for i, line := range searches {
		if !oracle.Required() && i%6 != 1 {
			continue // a second each; "make oracle" asks all of them
		}
		if testing.Short() && i != 1 {
			continue
		}
		t.Run(line, func(t *testing.T) {
			confirm(t, sesearch, path, p, strings.Fields(line))
		})
	}
}

func confirm(t *testing.T, sesearch, path string, p *policydb.Policy, args []string) {
	t.Helper()
	out, err := exec.Command(sesearch, append(slices.Clone(args), path)...).CombinedOutput()
	if err != nil {
		t.Fatalf("sesearch: %v\n%s", err, out)
	}
	want := strings.Split(strings.TrimSpace(string(out)), "\n")
	got, err := Search(p, query(t, args))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) == 0 {
		got = []string{""}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		if len(diff) > 3000 {
			diff = diff[:3000] + "…"
		}
		t.Errorf("%d rules, want %d (-sesearch +ours):\n%s", len(got), len(want), diff)
	}
}

// TestConfirmSearchSources compares on the small policies that use statements
// which no distribution's policy has.
func TestConfirmSearchSources(t *testing.T) {
	sesearch := oracle.Tool(t, "sesearch", "apt: setools")
	checkpolicy := oracle.Tool(t, "checkpolicy", "apt: checkpolicy")
	confs, err := filepath.Glob(filepath.Join(oracle.Corpus(t, "selinux/setools-conf"), "*.conf"))
	if err != nil {
		t.Fatal(err)
	}
	compiled := 0
	if !oracle.Required() {
		confs = slices.DeleteFunc(confs, func(c string) bool {
			base := filepath.Base(c)
			return base != "terulequery.conf" && base != "rbacrulequery.conf"
		})
	}
	for _, conf := range confs {
		out := filepath.Join(t.TempDir(), "policy")
		var ok bool
		for _, mls := range [][]string{{"-M"}, {}} {
			if exec.Command(checkpolicy, append(mls, "-c", "33", "-o", out, conf)...).Run() == nil {
				ok = true
				break
			}
		}
		if !ok {
			continue
		}
		compiled++
		t.Run(filepath.Base(conf), func(t *testing.T) {
			p := load(t, out)
			for _, args := range [][]string{
				{"-A"},
				{"--dontaudit"},
				{"--auditallow"},
				{"-T"},
				{"--type_change"},
				{"--type_member"},
				{"--allowxperm"},
				{"--dontauditxperm"},
				{"--auditallowxperm"},
				{"--role_allow"},
				{"--role_trans"},
				{"--range_trans"},
			} {
				confirm(t, sesearch, out, p, args)
			}
		})
	}
	if compiled == 0 || compiled < len(confs)*3/4 {
		t.Errorf("only %d of %d policies compiled", compiled, len(confs))
	}
}

func TestSearchUnknownNames(t *testing.T) {
	_, p := defaultPolicy(t)
	for _, tt := range []struct {
		q    Query
		want string
	}{
		{Query{Kinds: []policydb.RuleKind{policydb.Allow}, Source: "nosuch_t"}, `no type or attribute "nosuch_t"`},
		{Query{Kinds: []policydb.RuleKind{policydb.Allow}, Classes: []string{"nosuch"}}, `no class "nosuch"`},
		{Query{Kinds: []policydb.RuleKind{policydb.Allow}, Classes: []string{"file"}, Permissions: []string{"connectto"}}, `no permission "connectto"`},
		{Query{Kinds: []policydb.RuleKind{policydb.Allow}, Booleans: []string{"nosuch"}}, `no boolean "nosuch"`},
		{Query{RoleAllows: true, Source: "nosuch_r"}, `no role "nosuch_r"`},
		{Query{Kinds: []policydb.RuleKind{policydb.Allow}, Source: "(", SourceRegexp: true}, "missing closing )"},
	} {
		if _, err := Search(p, tt.q); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %s", tt.q, err, tt.want)
		}
	}
}

func BenchmarkSearch(b *testing.B) {
	path, p := defaultPolicy(b)
	data, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	q := Query{Kinds: []policydb.RuleKind{policydb.Allow}, Source: "container_t", Target: "container_file_t", Classes: []string{"file"}, Permissions: []string{"write"}}
	b.Run("warm", func(b *testing.B) {
		for b.Loop() {
			if got, err := Search(p, q); err != nil || len(got) == 0 {
				b.Fatal(got, err)
			}
		}
	})
	b.Run("with-load", func(b *testing.B) {
		for b.Loop() {
			p, err := policydb.Load(bytes.Clone(data))
			if err != nil {
				b.Fatal(err)
			}
			if got, err := Search(p, q); err != nil || len(got) == 0 {
				b.Fatal(got, err)
			}
		}
	})
}
