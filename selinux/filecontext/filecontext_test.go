// SPDX-License-Identifier: Apache-2.0

package filecontext

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/oracle"
)

func parse(tb testing.TB, files ...string) *Map {
	tb.Helper()
	var s Sources
	for _, f := range files {
		s.Specs = append(s.Specs, File{Name: "fc", Text: []byte(f)})
	}
	m, errs := Parse(s)
	if errs.HasErrors() {
		tb.Fatal(errs)
	}
	return m
}

const c = "system_u:object_r:"

func TestLookup(t *testing.T) {
	m := parse(t, strings.Join([]string{
		"# comment",
		"/.*\t" + c + "default_t:s0",
		"/etc(/.*)?\t" + c + "etc_t:s0",
		"/etc/passwd\t--\t" + c + "passwd_t:s0",
		"/etc/p.*\t" + c + "late_t:s0",
		"/etc/x\\.conf\t" + c + "x_t:s0",
		"/dev/null\t-c\t" + c + "null_t:s0",
		"/proc/.*\t<<none>>",
		"/var/a|/var/b\t" + c + "alt_t:s0",
		"/var/run/[^/]*\\.pid\t--\t" + c + "pid_t:s0",
		"/opt/ab?c*\t" + c + "opt_t:s0",
	}, "\n"), "/etc/local(/.*)?\t"+c+"local_t:s0\n/etc/x\\.conf\t"+c+"override_t:s0\n")
	for _, tt := range []struct {
		path string
		kind Kind
		want string
	}{
		{"/etc", Directory, "etc_t"},
		{"/etc/", Directory, "etc_t"},
		{"//etc///ssh", Regular, "etc_t"},
		{"/etcetera", Directory, "default_t"},
		{"/etc/passwd", Regular, "passwd_t"},
		{"/etc/passwd", Directory, "late_t"},
		{"/etc/passwd", Any, "passwd_t"},
		{"/etc/profile", Regular, "late_t"},
		{"/etc/x.conf", Regular, "override_t"},
		{"/etc/xxconf", Regular, "etc_t"},
		{"/etc/local/p", Regular, "local_t"},
		{"/dev/null", Char, "null_t"},
		{"/dev/null", Regular, "default_t"},
		{"/proc/1", Regular, None},
		{"/var/b", Regular, "alt_t"},
		{"/var/bc", Regular, "default_t"},
		{"/var/run/x.pid", Regular, "pid_t"},
		{"/var/run/y/x.pid", Regular, "default_t"},
		{"/opt/ac", Regular, "opt_t"},
		{"/opt/a", Regular, "opt_t"},
		{"/opt/abccc", Regular, "opt_t"},
		{"/opt/abd", Regular, "default_t"},
		{"/with\nnewline", Regular, "default_t"},
	} {
		got, ok := m.Lookup(tt.path, tt.kind)
		if !ok || !strings.Contains(got.Context, tt.want) {
			t.Errorf("%q %c: %q (%s), want %s", tt.path, tt.kind, got.Context, got.Pattern, tt.want)
		}
	}
	if m, ok := parse(t, "/a\t"+c+"a_t:s0").Lookup("/b", Any); ok {
		t.Errorf("nothing matches, and yet %+v", m)
	}
}

func TestSubstitutions(t *testing.T) {
	m, errs := Parse(Sources{
		Specs:    []File{{Text: []byte("/usr/lib(/.*)?\t" + c + "lib_t:s0\n/home/[^/]+/x\t" + c + "home_t:s0\n/etc\t" + c + "etc_t:s0\n")}},
		Subs:     File{Text: []byte("# c\n/people /home\n/strip /\n")},
		SubsDist: File{Text: []byte("/lib64 /usr/lib\n/lib\t/usr/lib\n")},
	})
	if errs.HasErrors() {
		t.Fatal(errs)
	}
	for path, want := range map[string]string{"/lib64/x": "lib_t", "/lib": "lib_t", "/libx": "", "/people/a/x": "home_t", "/strip/lib/y": "lib_t", "/strip/etc": "etc_t"} {
		got, ok := m.Lookup(path, Any)
		if ok != (want != "") || !strings.Contains(got.Context, want) {
			t.Errorf("%s: %+v, want %q", path, got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	_, errs := Parse(Sources{Specs: []File{{Name: "fc", Text: []byte("/a\n/b\t-x\t" + c + "b_t:s0\n/c(\t" + c + "c_t:s0\n/d\tnonsense\n/e -- a:b:c:s0 more\n/ok\t" + c + "d_t:s0\n")}}})
	var got []string
	for _, d := range errs {
		got = append(got, d.Span.Start.String()+" "+d.Code)
	}
	if want := []string{"1:1 FC-FIELDS", "2:4 FC-KIND", "3:1 FC-REGEXP", "4:4 FC-CONTEXT", "5:16 FC-FIELDS"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// debianMap is the default policy's file contexts with Debian's substitutions.
func debianMap(tb testing.TB) (dir string, m *Map) {
	tb.Helper()
	specs, err := os.ReadFile(debian.Policy(tb, "default", nil).FileContexts)
	if err != nil {
		tb.Fatal(err)
	}
	// secilc leaves the templates of home folders, which semodule expands.
	lines := slices.DeleteFunc(strings.SplitAfter(string(specs), "\n"), func(l string) bool { return strings.Contains(l, "HOME_") || strings.Contains(l, "%{") })
	specs = []byte(strings.Join(lines, ""))
	subs, err := os.ReadFile(filepath.Join(debian.PolicyTree(tb, "default"), "contexts", "files", "file_contexts.subs_dist"))
	if err != nil {
		tb.Fatal(err)
	}
	dir = tb.TempDir()
	for name, b := range map[string][]byte{"fc": specs, "fc.subs_dist": subs} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	m, errs := Parse(Sources{Specs: []File{{Name: "fc", Text: specs}}, SubsDist: File{Name: "subs", Text: subs}})
	if errs.HasErrors() {
		tb.Fatal(errs)
	}
	return dir, m
}

// paths are those of all packages installed on the machine of the test, and made
// ones for each specification.
func paths(tb testing.TB, m *Map) []string {
	tb.Helper()
	var out []string
	lists, _ := filepath.Glob("/var/lib/dpkg/info/*.list")
	for _, l := range lists {
		b, err := os.ReadFile(l)
		if err != nil {
			tb.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if p := strings.TrimSpace(line); strings.HasPrefix(p, "/") && p != "/." {
				out = append(out, p)
			}
		}
	}
	meta := regexp.MustCompile(`\(([^()|]*)[^()]*\)[?*+]?|\[[^]]*\][?*+]?|\\(.)|\.[*+]|.[?]`)
	var walk func(n *node)
	walk = func(n *node) {
		for _, s := range n.specs {
			made := meta.ReplaceAllString(s.pattern, "x$1$2")
			out = append(out, made, made+"/below", s.prefix)
		}
		for _, c := range n.children {
			walk(c)
		}
	}
	walk(m.root)
	for l := range m.literals {
		out = append(out, l, l+"x")
	}
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(p string) bool {
		return !strings.HasPrefix(p, "/") || strings.ContainsAny(p, "\n\t") || p == "/"
	})
}

func TestConfirmDebian(t *testing.T) {
	tool := oracle.Tool(t, "matchpathcon", "apt: selinux-utils")
	dir, m := debianMap(t)
	all := paths(t, m)
	if !oracle.Required() && len(all) > 30000 {
		all = slices.DeleteFunc(all, func(p string) bool { return len(p)%5 != 0 })
	}
	if testing.Short() {
		n := 0
		all = slices.DeleteFunc(all, func(string) bool { n++; return n%20 != 0 })
	}
	if len(all) < 500 {
		t.Fatalf("only %d paths", len(all))
	}
	for _, kind := range []struct {
		flag string
		kind Kind
	}{{"file", Regular}, {"dir", Directory}, {"lnk_file", Symlink}} {
		differences := 0
		for chunk := range slices.Chunk(all, 2000) {
			out, _ := exec.Command(tool, append([]string{"-N", "-m", kind.flag, "-f", filepath.Join(dir, "fc")}, chunk...)...).Output()
			want := map[string]string{}
			for line := range strings.Lines(string(out)) {
				p, c, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
				want[p] = c
			}
			for _, p := range chunk {
				got, ok := m.Lookup(p, kind.kind)
				have := got.Context
				if !ok {
					have = None
				}
				if w := want[p]; w != "" && w != have && differences < 20 {
					differences++
					t.Errorf("%s %s: %s by %s, matchpathcon says %s", kind.flag, p, have, got.Pattern, w)
				}
			}
		}
	}
	t.Logf("%d paths of three kinds, %d specifications", len(all), m.Len())
}

func TestConfirmTalos(t *testing.T) {
	tool := oracle.Tool(t, "matchpathcon", "apt: selinux-utils")
	text, err := os.ReadFile(filepath.Join(oracle.Corpus(t, "selinux/talos"), "file_contexts"))
	if err != nil {
		t.Fatal(err)
	}
	m := parse(t, string(text))
	fc := filepath.Join(t.TempDir(), "fc")
	if err := os.WriteFile(fc, text, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range paths(t, m) {
		if strings.HasPrefix(p, "/usr/share") {
			continue
		}
		if len(p)%40 != 0 {
			continue
		}
		out, _ := exec.Command(tool, "-N", "-n", "-m", "file", "-f", fc, p).Output()
		got, ok := m.Lookup(p, Regular)
		if want := strings.TrimSpace(string(out)); want != "" && (want == None) == ok && want != got.Context {
			t.Errorf("%s: %q, want %q", p, got.Context, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("/etc(/.*)?\t-d\t"+c+"etc_t:s0\n"), "/etc/x")
	f.Add([]byte("/a|/b\t"+c+"x:s0\n\\\t<<none>>\n/[a\ta:b:c\n"), "/b")
	f.Fuzz(func(t *testing.T, text []byte, path string) {
		if len(text) > 4096 || len(path) > 256 {
			return
		}
		m, _ := Parse(Sources{Specs: []File{{Text: text}}, Subs: File{Text: text}})
		got, ok := m.Lookup(path, Any)
		if !ok {
			return
		}
		// What matched matches by the plain reading as well.
		p := clean(path)
		if to, done := apply(m.subs, p); done {
			p = to
		}
		re, err := regexp.Compile(`\A(?s:` + got.Pattern + `)\z`)
		if err == nil && !re.MatchString(p) && !bytes.Contains(text, []byte(`\`)) {
			t.Fatalf("%q does not match %q", got.Pattern, p)
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	_, m := debianMap(b)
	all := paths(b, m)
	for i := 0; b.Loop(); i++ {
		m.Lookup(all[i%len(all)], Regular)
	}
}
