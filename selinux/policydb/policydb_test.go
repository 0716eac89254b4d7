// SPDX-License-Identifier: Apache-2.0

package policydb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/internal/selinuxtest"
)

// sources are the policies of testdata and how they are compiled.
var sources = []struct {
	file  string
	flags []string
	min   int // the lowest version that checkpolicy can express it in
}{
	{"every.conf", []string{"-M"}, 31},
	{"every-nomls.conf", nil, 31},
	{"old.conf", []string{"-M"}, 19},
	{"old-nomls.conf", nil, 15},
	{"xen.conf", []string{"-t", "xen"}, 24},
	{"xen-devicetree.conf", []string{"-t", "xen"}, 30},
}

func testPolicy(t testing.TB, file string, version int) []byte {
	t.Helper()
	for _, s := range sources {
		if s.file == file {
			return selinuxtest.CompileFile(t, filepath.Join("testdata", file), version, s.flags...)
		}
	}
	t.Fatalf("no source %s", file)
	return nil
}

func load(t testing.TB, data []byte) *Policy {
	t.Helper()
	p, err := Load(data)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// checkReencode loads a policy and demands the same bytes back.
func checkReencode(t *testing.T, data []byte) {
	t.Helper()
	p, err := Load(data)
	if err != nil {
		t.Error(err)
		return
	}
	out, err := p.Encode()
	if err != nil {
		t.Error(err)
		return
	}
	if !bytes.Equal(out, data) {
		at := 0
		for at < min(len(out), len(data)) && out[at] == data[at] {
			at++
		}
		t.Errorf("encodes to %d bytes, not %d; the first difference is at %d", len(out), len(data), at)
	}
	if w := p.Warnings(); len(w) > 0 {
		t.Errorf("warnings: %v", w)
	}
}

func TestConfirmReencode(t *testing.T) {
	for _, s := range sources {
		last := 33
		if slices.Contains(s.flags, "xen") {
			last = 30
		}
		for v := s.min; v <= last; v++ {
			if slices.Contains(s.flags, "xen") && v > 24 && v < 30 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", s.file, v), func(t *testing.T) { checkReencode(t, testPolicy(t, s.file, v)) })
		}
	}
}

func TestConfirmReencodeDebian(t *testing.T) {
	for _, flavour := range []string{"default", "mls"} {
		t.Run(flavour, func(t *testing.T) {
			data, err := os.ReadFile(debian.Policy(t, flavour, nil).Policy)
			if err != nil {
				t.Fatal(err)
			}
			checkReencode(t, data)
		})
	}
}

func TestConfirmReencodeCorpus(t *testing.T) {
	talos, err := os.ReadFile(filepath.Join(oracle.Corpus(t, "selinux/talos"), "policy.33"))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("talos", func(t *testing.T) { checkReencode(t, talos) })
	files, err := filepath.Glob(filepath.Join(oracle.Corpus(t, "selinux/setools-conf"), "*.conf"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources: %v", err)
	}
	done := 0
	for _, f := range files {
		conf, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []int{19, 20, 23, 24, 25, 26, 28, 29, 30, 31, 32, 33} {
			for _, flags := range [][]string{{"-M"}, nil, {"-t", "xen"}} {
				data, ok := selinuxtest.Compile(t, conf, v, flags...)
				if !ok {
					continue
				}
				done++
				t.Run(fmt.Sprintf("%s/%d%s", filepath.Base(f), v, strings.Join(flags, "")), func(t *testing.T) { checkReencode(t, data) })
				break
			}
		}
	}
	if done < 150 {
		t.Errorf("only %d policies", done)
	}
}

// TestConfirmReadEvery checks the reading of one policy with everything in it.
func TestConfirmReadEvery(t *testing.T) {
	p := load(t, testPolicy(t, "every.conf", 33))
	name := func(id TypeID) string { return p.TypeName(id) }
	if p.Version != 33 || p.Target != SELinux || !p.MLS() || p.HandleUnknown() != DenyUnknown {
		t.Errorf("header: version %d, %s, MLS %t, %s", p.Version, p.Target, p.MLS(), p.HandleUnknown())
	}
	var caps []string
	for bit := range p.Capabilities.Bits() {
		n, known := CapabilityName(bit)
		if !known {
			t.Errorf("capability %d unknown", bit)
		}
		caps = append(caps, n)
	}
	if got := strings.Join(caps, " "); got != "network_peer_controls open_perms extended_socket_class nnp_nosuid_transition" {
		t.Errorf("capabilities %q", got)
	}
	quiet := p.Types.ByName("quiet_t")
	if quiet == nil || !p.Permissive.Has(quiet.Value) || p.Permissive.Len() != 1 {
		t.Errorf("permissive: %v", p.Permissive)
	}
	file := p.Classes.ByName("file")
	if file == nil || file.CommonName != "file_like" || file.PermissionMask("ioctl") != 1 || file.PermissionMask("entrypoint") == 0 ||
		file.PermissionMask("nonsense") != 0 || len(file.PermissionNames(file.AllPermissions())) != 11 {
		t.Errorf("class file: %+v", file)
	}
	if file.DefaultUser != DefaultTarget || file.DefaultRole != DefaultSource || file.DefaultRange != DefaultTargetLow {
		t.Errorf("defaults of file: %d %d %d", file.DefaultUser, file.DefaultRole, file.DefaultRange)
	}
	if d := p.Classes.ByName("dir"); d.DefaultType != DefaultSource || d.DefaultRange != DefaultGLBLUB {
		t.Errorf("defaults of dir: %d %d", d.DefaultType, d.DefaultRange)
	}
	if lonely := p.Classes.ByName("lonely"); lonely == nil || lonely.AllPermissions() != 0 {
		t.Errorf("class lonely: %+v", lonely)
	}
	if n := len(file.Constraints); n != 3 {
		t.Errorf("constraints of file: %d", n)
	}
	if n := len(file.ValidateTrans); n != 2 || file.ValidateTrans[0].IsMLS() == file.ValidateTrans[1].IsMLS() {
		t.Errorf("validatetrans of file: %d", n)
	}
	alias := p.Types.ByName("other_t")
	if alias == nil || !alias.Alias || name(alias.ID()) != "data_alias_t" {
		t.Errorf("alias: %+v", alias)
	}
	domain := p.Types.ByName("domain")
	if !domain.Attribute || len(p.TypesOf(domain.ID())) != 4 {
		t.Errorf("attribute domain: %+v, %v", domain, p.TypesOf(domain.ID()))
	}
	if types := p.TypesOf(p.Types.ByName("empty_attr").ID()); len(types) != 0 {
		t.Errorf("empty attribute has %v", types)
	}
	if types := p.TypesOf(quiet.ID()); len(types) != 1 || types[0] != quiet.ID() {
		t.Errorf("TypesOf(quiet_t) = %v", types)
	}
	child := p.Types.ByName("app_child_t")
	if name(child.Bounds) != "app_t" {
		t.Errorf("bounds of app_child_t: %s", name(child.Bounds))
	}
	var kinds []string
	for _, r := range p.Rules {
		kinds = append(kinds, r.Kind().String())
		if x := p.XPerms(r); r.Kind() == AuditAllowX && (x.Kind != XPermIoctlFunction || x.Driver != 0x54 || !x.Has(1) || x.Has(3)) {
			t.Errorf("auditallowxperm: %+v", x)
		}
	}
	slices.Sort(kinds)
	if got := len(slices.Compact(kinds)); got != 9 {
		t.Errorf("kinds of rules: %v", kinds)
	}
	if len(p.Conditionals) != 3 || len(p.Conditionals[0].True)+len(p.Conditionals[0].False) == 0 {
		t.Errorf("conditionals: %+v", p.Conditionals)
	}
	var exprs []string
	for i := range p.Conditionals {
		exprs = append(exprs, p.CondString(p.Conditionals[i].Expr))
	}
	slices.Sort(exprs)
	want := []string{
		"(app_writes && ! third) || ((app_reads_secret ^ third) && (app_writes == third))",
		"app_reads_secret", "app_reads_secret != third",
	}
	if !slices.Equal(exprs, want) {
		t.Errorf("conditionals: %q", exprs)
	}
	if n := len(p.FilenameTransitions); n != 2 {
		t.Errorf("filename transitions: %d", n)
	}
	for _, f := range p.FilenameTransitions {
		if f.Name == "key" && len(f.Outcomes) != 2 {
			t.Errorf("outcomes of %q: %d", f.Name, len(f.Outcomes))
		}
	}
	oc := &p.ObjectContexts
	if len(oc.InitialSIDs) != 5 || len(oc.Ports) != 4 || len(oc.Interfaces) != 1 || len(oc.Nodes) != 1 || len(oc.Nodes6) != 1 ||
		len(oc.FSUses) != 3 || len(oc.PKeys) != 1 || len(oc.EndPorts) != 1 || len(p.Genfs) != 2 {
		t.Errorf("object contexts: %+v", oc)
	}
	if n := oc.Nodes6[0]; n.Address != [16]byte{0x20, 0x01, 0x0d, 0xb8} || n.Mask != [16]byte{0xff, 0xff, 0xff, 0xff} {
		t.Errorf("IPv6 node: %v", n)
	}
	if e := oc.EndPorts[0]; e.Device != "mlx4_0" || e.Port != 2 {
		t.Errorf("end port: %+v", e)
	}
	if k := oc.PKeys[0]; k.SubnetPrefix != [8]byte{0xfe, 0x80} || k.High != 0x10 {
		t.Errorf("pkey: %+v", k)
	}
	contexts := map[string]bool{}
	for _, s := range oc.InitialSIDs {
		contexts[p.ContextString(s.Context)] = true
	}
	if !contexts["system_u:object_r:data_t:s0-s1:c1"] || !contexts["system_u:system_r:init_t:s0"] {
		t.Errorf("initial SIDs: %v", contexts)
	}
	if u := p.Users.ByName("root_u"); p.RangeString(u.Range) != "s0:c1-s1:c0.c4" {
		t.Errorf("range of root_u: %s", p.RangeString(u.Range))
	}
	if len(p.RangeTransitions) != 2 || len(p.RoleTransitions) != 2 || len(p.RoleAllows) != 2 {
		t.Errorf("transitions: %d range, %d role, %d allow", len(p.RangeTransitions), len(p.RoleTransitions), len(p.RoleAllows))
	}
}

func TestConfirmReadXen(t *testing.T) {
	p := load(t, testPolicy(t, "xen-devicetree.conf", 30))
	oc := &p.ObjectContexts
	if p.Target != Xen || len(oc.PIRQs) != 1 || len(oc.IOPorts) != 1 || len(oc.IOMems) != 3 || len(oc.PCIDevices) != 1 || len(oc.DeviceTrees) != 1 {
		t.Errorf("%s: %+v", p.Target, oc)
	}
	if d := oc.DeviceTrees[0]; d.Path != "/soc/gpio" || p.ContextString(d.Context) != "system_u:object_r:tree_t" {
		t.Errorf("device tree: %+v", d)
	}
	if _, err := p.EncodeVersion(24); err == nil {
		t.Error("a device tree was written in version 24")
	}
}

// decompile has checkpolicy turn a policy into CIL and sorts the lines.
func decompile(t *testing.T, data []byte, flags ...string) string {
	t.Helper()
	checkpolicy := oracle.Tool(t, "checkpolicy", "apt: checkpolicy")
	dir := t.TempDir()
	in, out := filepath.Join(dir, "policy"), filepath.Join(dir, "policy.cil")
	if err := os.WriteFile(in, data, 0o644); err != nil {
		t.Fatal(err)
	}
	args := append(flags, "-b", "-C", "-o", out, in)
	if msg, err := exec.Command(checkpolicy, args...).CombinedOutput(); err != nil {
		t.Fatalf("checkpolicy %v: %v\n%s", args, err, msg)
	}
	cil, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(cil), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestConfirmEncodeVersion writes policies in other versions and has libsepol
// say that they still mean the same.
func TestConfirmEncodeVersion(t *testing.T) {
	p := load(t, testPolicy(t, "every.conf", 33))
	want := decompile(t, testPolicy(t, "every.conf", 33), "-M")
	for _, v := range []uint32{32, 33} {
		data, err := p.EncodeVersion(v)
		if err != nil {
			t.Errorf("version %d: %v", v, err)
			continue
		}
		if got := decompile(t, data, "-M"); got != want {
			t.Errorf("version %d means something else", v)
		}
	}
	old := load(t, testPolicy(t, "old.conf", 24))
	want = decompile(t, testPolicy(t, "old.conf", 24), "-M")
	for v := uint32(24); v <= 33; v++ {
		data, err := old.EncodeVersion(v)
		if err != nil {
			t.Errorf("version %d: %v", v, err)
			continue
		}
		if got := decompile(t, data, "-M"); got != want {
			t.Errorf("version %d means something else", v)
		}
	}
	for _, v := range []uint32{14, 19, 24, 29, 30, 31, 36} {
		var encode *EncodeError
		if _, err := p.EncodeVersion(v); !errors.As(err, &encode) {
			t.Errorf("version %d: %v", v, err)
		}
	}
}

// TestConfirmNewVersions writes what only versions 34 and 35 hold and reads it
// back.
func TestConfirmNewVersions(t *testing.T) {
	p := load(t, testPolicy(t, "every.conf", 33))
	p.Version = 35
	p.NeverAudit = BitmapOf(p.Types.ByName("quiet_t").Value)
	x := slices.IndexFunc(p.Rules, func(r Rule) bool { return r.Kind() == AllowX })
	p.Conditionals[0].True = append(slices.Clone(p.Conditionals[0].True), p.Rules[x])
	data, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	checkReencode(t, data)
	q := load(t, data)
	if !q.NeverAudit.Equal(p.NeverAudit) || len(q.Conditionals[0].True) != len(p.Conditionals[0].True) {
		t.Error("read back differently")
	}
	if _, err := q.EncodeVersion(33); err == nil {
		t.Error("conditional extended permissions were written in version 33")
	}
}

func TestConfirmWarnings(t *testing.T) {
	p := load(t, testPolicy(t, "every.conf", 33))
	p.Capabilities = BitmapOf(0, 14, 99)
	data, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	data = append(data, "tail"...)
	q := load(t, data)
	if w := q.Warnings(); len(w) != 2 || !strings.Contains(w[0], "capability 99") || !strings.Contains(w[1], "4 bytes") {
		t.Errorf("warnings: %q", w)
	}
	if out, err := q.Encode(); err != nil || !bytes.Equal(out, data) {
		t.Errorf("not written back as it was: %v", err)
	}
}

// TestConfirmTruncated cuts policies everywhere.
func TestConfirmTruncated(t *testing.T) {
	for _, file := range []string{"every.conf", "xen-devicetree.conf"} {
		data := testPolicy(t, file, 30+3*len(file[:1])*btoi(file == "every.conf"))
		for n := range len(data) {
			var parse *ParseError
			if _, err := Load(data[:n]); !errors.As(err, &parse) {
				t.Fatalf("%s cut to %d bytes: %v", file, n, err)
			} else if parse.Offset > n || parse.Section == "" || parse.Expected == "" {
				t.Fatalf("%s cut to %d bytes: %v", file, n, err)
			}
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestConfirmFlipped flips bits; whatever is accepted must be written back.
func TestConfirmFlipped(t *testing.T) {
	data := testPolicy(t, "every.conf", 33)
	rng := rand.New(rand.NewPCG(3, 4))
	accepted := 0
	for range 20000 {
		bad := slices.Clone(data)
		for range 1 + rng.IntN(3) {
			bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
		}
		p, err := Load(bad)
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Fatalf("long error: %v", err)
			}
			continue
		}
		accepted++
		if out, err := p.Encode(); err != nil || !bytes.Equal(out, bad) {
			t.Fatalf("accepted and not written back: %v", err)
		}
	}
	t.Logf("%d of 20000 accepted", accepted)
}

func header(words ...any) []byte {
	var b []byte
	for _, w := range words {
		switch w := w.(type) {
		case int:
			b = binary.LittleEndian.AppendUint32(b, uint32(w))
		case string:
			b = append(b, w...)
		}
	}
	return b
}

// badTable is what hostile or mistaken input looks like, and what is said.
var badTable = []struct {
	name string
	data []byte
	want string
}{
	{"empty", nil, "offset 0 (header): expected 4 more bytes of the magic number"},
	{"text", []byte("allow a b:file read;"), "offset 0 (header): expected the magic number 0xf97cff8c of a kernel policy, found 0x6f6c6c61"},
	{"module", header(magicModule, 8), "found 0xf97cff8d of a policy module"},
	{"package", header(magicPkg, 8), "found 0xf97cff8f of a policy module"},
	{"platform length", header(magicKernel, 9), "offset 4 (header): expected the length 8 of the platform, found 9"},
	{"platform", header(magicKernel, 8, "SE Lynux"), `offset 8 (header): expected the platform "SE Linux" or "XenFlask", found "SE Lynux"`},
	{"version 14", header(magicKernel, 8, "SE Linux", 14), "offset 16 (header): expected a version from 15 to 35, found 14"},
	{"version 36", header(magicKernel, 8, "SE Linux", 36), "offset 16 (header): expected a version from 15 to 35, found 36"},
	{"tables", header(magicKernel, 8, "SE Linux", 33, 1, 8, 7), "offset 24 (header): expected 8 symbol tables and 9 object context tables in version 33 for selinux, found 8 and 7"},
	{"bitmap words", header(magicKernel, 8, "SE Linux", 33, 1, 8, 9, 32, 0, 0), "offset 32 (policy capabilities): expected a bitmap of 64-bit words"},
	{"bitmap high", header(magicKernel, 8, "SE Linux", 33, 1, 8, 9, 64, 65, 1, 0, 0, 0), "offset 36 (policy capabilities): expected a high bit that is a multiple of 64"},
	{"bitmap count", header(magicKernel, 8, "SE Linux", 33, 1, 8, 9, 64, 64, 1<<31-1), "offset 40 (policy capabilities): expected at most 0 words"},
	{"bitmap start", header(magicKernel, 8, "SE Linux", 33, 1, 8, 9, 64, 64, 1, 64, 1, 0), "offset 44 (policy capabilities): expected a multiple of 64 from 0 to 0"},
	{"bitmap zero", header(magicKernel, 8, "SE Linux", 33, 1, 8, 9, 64, 64, 1, 0, 0, 0), "offset 48 (policy capabilities): expected a word with bits"},
	{"symbols", header(magicKernel, 8, "SE Linux", 33, 1, 8, 9, 64, 0, 0, 64, 0, 0, 1, 1<<31-1), "offset 60 (commons): expected at most 0 commons"},
	{"values", header(magicKernel, 8, "SE Linux", 33, 1, 8, 9, 64, 0, 0, 64, 0, 0, 1<<31-1, 0), "offset 56 (commons): expected a highest value of commons up to 65535, found 2147483647"},
}

func TestParseBad(t *testing.T) {
	for _, tt := range badTable {
		p, err := Parse(tt.data)
		var parse *ParseError
		if p != nil || !errors.As(err, &parse) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %s", tt.name, err, tt.want)
		}
	}
}

// TestConfirmValidate breaks the meaning of a policy whose form is right.
func TestConfirmValidate(t *testing.T) {
	data := testPolicy(t, "every.conf", 33)
	for _, tt := range []struct {
		name string
		edit func(*Policy)
		want string
	}{
		{"rule twice", func(p *Policy) { p.Rules = append(p.Rules, p.Rules[0]) }, "is there twice"},
		{"rule's type", func(p *Policy) { p.Rules[0].Target = 9999 }, "not all of which exist"},
		{"rule's class", func(p *Policy) { p.Rules[0].Class = 99 }, "not all of which exist"},
		{"new type", func(p *Policy) {
			i := slices.IndexFunc(p.Rules, func(r Rule) bool { return r.Kind().IsType() })
			p.Rules[i].Data = uint32(p.Types.ByName("domain").ID())
		}, "gives the type"},
		{"boolean", func(p *Policy) { p.Conditionals[0].Expr[0].Bool = 77 }, "no boolean has the value 77"},
		{"constraint names", func(p *Policy) {
			for i := range p.Classes.Entries {
				for j := range p.Classes.Entries[i].Constraints {
					for k := range p.Classes.Entries[i].Constraints[j].Expr {
						p.Classes.Entries[i].Constraints[j].Expr[k].Names = BitmapOf(100000)
					}
				}
			}
		}, "of a constraint: value 100001"},
		{"constraint permissions", func(p *Policy) { p.Classes.ByName("file").Constraints[0].Permissions = 1 << 31 }, "on permissions 0x80000000"},
		{"context", func(p *Policy) { p.ObjectContexts.Ports[0].Context.Role = 4 }, "may not have type"},
		{"context level", func(p *Policy) { p.ObjectContexts.Ports[0].Context.Range.Low.Sensitivity = 3 }, "does not dominate"},
		{"sensitivity", func(p *Policy) { p.ObjectContexts.Ports[0].Context.Range.High.Sensitivity = 9 }, "no sensitivity has the value 9"},
		{"bounds", func(p *Policy) { p.Types.ByName("app_t").Bounds = p.Types.ByName("app_child_t").ID() }, "form a loop"},
		{"bounded by attribute", func(p *Policy) { p.Types.ByName("app_t").Bounds = p.Types.ByName("domain").ID() }, "cannot bound"},
		{"object_r", func(p *Policy) { p.Roles.ByName("object_r").Name = "objekt" }, "object_r and no other role"},
		{"role allow", func(p *Policy) { p.RoleAllows[0].NewRole = 88 }, "roles"},
		{"role transition", func(p *Policy) { p.RoleTransitions[0].Class = 88 }, "not all of which exist"},
		{"range transition", func(p *Policy) { p.RangeTransitions[0].Range.High.Sensitivity = 88 }, "no sensitivity"},
		{"filename", func(p *Policy) { p.FilenameTransitions[0].Outcomes[0].Type = 888 }, "gets the type 888"},
		{"default", func(p *Policy) { p.Classes.ByName("file").DefaultRange = 8 }, "has defaults"},
		{"genfs class", func(p *Policy) { p.Genfs[0].Entries[0].Class = 88 }, "class 88 of"},
		{"fs_use", func(p *Policy) { p.ObjectContexts.FSUses[0].Behavior = 6 }, "in the way 6"},
		{"pkey", func(p *Policy) { p.ObjectContexts.PKeys[0].High = 1 << 16 }, "the highest is 65535"},
		{"end port", func(p *Policy) { p.ObjectContexts.EndPorts[0].Port = 0 }, "ports are from 1 to 255"},
		{"conditional type rule", func(p *Policy) {
			i := slices.IndexFunc(p.Rules, func(r Rule) bool { return r.Kind() == TypeTransition })
			p.Conditionals[0].True = append(p.Conditionals[0].True, p.Rules[i])
		}, "is there unconditionally too"},
		{"xperm kind", func(p *Policy) { p.XPermSets[0].Kind = 9 }, "extended permissions of kind 9"},
		{"permissive", func(p *Policy) { p.Permissive = BitmapOf(5000) }, "permissive types): value 5000"},
	} {
		p := load(t, data)
		tt.edit(p)
		err := p.Validate()
		var validate *ValidateError
		if !errors.As(err, &validate) || !strings.Contains(strings.ReplaceAll(err.Error(), "permissive types: ", "permissive types): "), tt.want) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
}

func TestBitmap(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		var numbers []uint32
		for range rng.IntN(20) {
			numbers = append(numbers, rng.Uint32N(1000))
		}
		b := BitmapOf(numbers...)
		slices.Sort(numbers)
		numbers = slices.Compact(numbers)
		if got := slices.Collect(b.Bits()); !slices.Equal(got, numbers) || b.Len() != len(numbers) {
			t.Fatalf("bits %v, want %v", got, numbers)
		}
		for n := range uint32(1000) {
			if b.Has(n) != slices.Contains(numbers, n) || b.HasValue(n+1) != b.Has(n) {
				t.Fatalf("Has(%d) wrong in %v", n, numbers)
			}
		}
		half := BitmapOf(numbers[:len(numbers)/2]...)
		if !b.Contains(half) || half.Contains(b) != (len(numbers) == len(numbers)/2) {
			t.Fatalf("Contains wrong: %v and its half", numbers)
		}
		if top, ok := b.Max(); ok != (len(numbers) > 0) || (ok && top != numbers[len(numbers)-1]) {
			t.Fatalf("Max %d, %t of %v", top, ok, numbers)
		}
	}
	if BitmapOf(0).HasValue(0) {
		t.Error("there is no value 0")
	}
}

func FuzzParse(f *testing.F) {
	for _, tt := range badTable {
		f.Add(tt.data)
	}
	seeds, err := filepath.Glob("testdata/seeds/*")
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, s := range seeds {
		data, err := os.ReadFile(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data)
		if err != nil {
			return
		}
		out, err := p.Encode()
		if err != nil {
			t.Fatalf("parsed and not encoded: %v", err)
		}
		if !bytes.Equal(out, data) {
			t.Fatal("parsed and encoded differently")
		}
		if err := p.Validate(); err != nil {
			if err.Error() == "" {
				t.Fatal("an error without a text")
			}
			return
		}
		for i := range p.Conditionals {
			_ = p.CondString(p.Conditionals[i].Expr)
		}
		for t := range p.Types.All() {
			_ = p.TypesOf(t.ID())
		}
	})
}

func BenchmarkLoadDebian(b *testing.B) {
	data, err := os.ReadFile(debian.Policy(b, "default", nil).Policy)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Load(data); err != nil {
			b.Fatal(err)
		}
	}
}
