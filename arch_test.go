// SPDX-License-Identifier: Apache-2.0

package palisade

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/palisade-sec/palisade"

// layers is the table of ARCHITECTURE.md. A package belongs to the longest
// prefix that fits; a package that fits none is an error, so that a new room is
// put into the house on purpose.
var layers = map[string]int{
	"diag": 0, "denial": 0, "target": 0, "selinux": 0, "cbpf": 0, "caps": 0,

	"selinux/cil": 1, "selinux/compile": 1, "selinux/policydb": 1, "selinux/ss": 1,
	"selinux/analysis": 1, "selinux/container": 1, "selinux/filecontext": 1,
	"apparmor": 1, "seccomp": 1, "landlock": 1, "dac": 1, "policy": 1,
	"shield/sealfs": 1, "shield/attest": 1,

	"bundle": 2, "explain": 2, "learn": 2, "svirt": 2, "access": 2, "audit": 2,

	"selinux/selinuxfs": 3, "selinux/relabel": 3, "apparmor/securityfs": 3,
	"seccomp/install": 3, "seccomp/record": 3, "landlock/install": 3, "audit/netlink": 3, "shield": 3,

	"internal/cli": 4, "internal/daemon": 4, "internal/webui": 4,
	"cmd": 5,
}

// testOnly packages serve tests; no other code may import them.
var testOnly = []string{"internal/await", "internal/debian", "internal/enginetest", "internal/escapes", "internal/freestanding", "internal/mutate", "internal/oracle", "internal/selinuxtest", "internal/vmtest"}

// internalLayer places the internal packages that serve one layer.
var internalLayer = map[string]int{
	"internal/atomicfile":         2,
	"internal/configfile":         3,
	"internal/container":          3,
	"internal/delegate":           3,
	"internal/effective":          3,
	"internal/enable":             3,
	"internal/engine/lxc":         3,
	"internal/engine/oci":         3,
	"internal/engine/run":         3,
	"internal/gate":               3,
	"internal/gc":                 3,
	"internal/handover":           3,
	"internal/hold":               3,
	"internal/hostfacts":          3,
	"internal/hostfacts/bpflsm":   3,
	"internal/image":              3,
	"internal/integrate":          3,
	"internal/laststep":           1,
	"internal/launch":             3,
	"internal/launch/profile":     3,
	"internal/observe":            3,
	"internal/probe":              3,
	"internal/registry/authority": 3,
	"internal/registry/bolt":      3,
	"internal/registry/socket":    3,
	"internal/settings":           3,
	"internal/state":              3,
	"internal/strictjson":         2,
	"internal/witness":            3,
}

// edges lists imports of the pure layers that are allowed all the same, each
// with its reason.
var edges = map[string]string{
	"internal/atomicfile os": "it serves the adapters and the application, and knows nothing but files",
}

// sameLayer lists imports between packages of one layer that are not of one
// mechanism (one top-level folder), each with its reason.
var sameLayer = map[string]string{
	"internal/launch/profile apparmor/securityfs": "a container's profile is loaded and unloaded with the container; this is the kernel's side of it",
}

// forbidden imports of the pure layers 0 to 2, with the reason.
var forbidden = map[string]string{
	"os":                    "pure layers build and run on any OS; callers hand in what was read",
	"os/exec":               "pure layers start nothing",
	"net":                   "pure layers talk to nobody",
	"net/http":              "pure layers talk to nobody",
	"syscall":               "the kernel is at the edge (layer 3)",
	"golang.org/x/sys/unix": "the kernel is at the edge (layer 3)",
	"unsafe":                "decoders of hostile input stay memory-safe",
}

// thirdParty lists what layers 0 and 1 may import from outside, with the reason.
var thirdParty = map[string]string{
	"policy go.yaml.in/yaml/v4": "the policy file is YAML with positions",
}

type pkg struct {
	ImportPath   string
	Dir          string
	Name         string
	GoFiles      []string
	IgnoredFiles []string `json:"IgnoredGoFiles"`
	Imports      []string
	Standard     bool
}

func (p pkg) rel() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

func listPackages(t *testing.T) []pkg {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Name,GoFiles,IgnoredGoFiles,Imports,Standard", "./...")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func layerOf(rel string) (int, bool) {
	if l, ok := internalLayer[rel]; ok {
		return l, true
	}
	for p := rel; ; {
		if l, ok := layers[p]; ok {
			return l, true
		}
		i := strings.LastIndexByte(p, '/')
		if i < 0 {
			return 0, false
		}
		p = p[:i]
	}
}

func top(rel string) string {
	t, _, _ := strings.Cut(rel, "/")
	return t
}

func TestLayers(t *testing.T) {
	for _, p := range listPackages(t) {
		rel := p.rel()
		if rel == "" || slices.Contains(testOnly, rel) {
			continue
		}
		layer, ok := layerOf(rel)
		if !ok {
			t.Errorf("%s is in no layer: put it into ARCHITECTURE.md and into the table of this test", rel)
			continue
		}
		for _, imp := range p.Imports {
			if dep, ours := strings.CutPrefix(imp, module+"/"); ours {
				if slices.Contains(testOnly, dep) {
					t.Errorf("%s imports %s, which is for tests", rel, dep)
					continue
				}
				depLayer, _ := layerOf(dep)
				switch {
				case depLayer > layer:
					t.Errorf("%s (layer %d) imports %s (layer %d)", rel, layer, dep, depLayer)
				case depLayer == layer && layer != 3 && top(dep) != top(rel) && sameLayer[rel+" "+dep] == "":
					t.Errorf("%s and %s are both of layer %d: move what they share down, or give the reason in sameLayer", rel, dep, layer)
				}
				continue
			}
			if imp == "testing" {
				t.Errorf("%s imports testing outside of tests", rel)
			}
			if reason, bad := forbidden[imp]; bad && layer <= 2 && edges[rel+" "+imp] == "" {
				t.Errorf("%s (layer %d) imports %s: %s", rel, layer, imp, reason)
			}
			external := strings.Contains(strings.SplitN(imp, "/", 2)[0], ".")
			if external && layer <= 1 && !strings.HasPrefix(imp, "golang.org/x/") && thirdParty[rel+" "+imp] == "" {
				t.Errorf("%s (layer %d) imports %s: layers 0 and 1 stand on the standard library", rel, layer, imp)
			}
			if external && layer == 0 && thirdParty[rel+" "+imp] == "" {
				t.Errorf("%s (layer 0) imports %s: the vocabulary stands on the standard library", rel, imp)
			}
		}
	}
}

// TestSmallBinaries keeps the programs that run once for every container free of
// what makes them slow to start or large.
func TestSmallBinaries(t *testing.T) {
	// A domain of libvirt is defined in XML, and starting one takes a tenth of a second.
	needed := map[string]string{"palisade-lxc": "encoding/xml"}
	heavy := []string{"net/http", "github.com/spf13/cobra", "encoding/xml", "html/template", "github.com/google/go-containerregistry/pkg/v1"}
	for _, name := range []string{"palisade-oci", "palisade-lxc"} {
		if _, err := os.Stat(filepath.Join("cmd", name)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		out, err := exec.Command("go", "list", "-deps", "./cmd/"+name).CombinedOutput()
		if err != nil {
			t.Fatalf("go list: %v\n%s", err, out)
		}
		deps := strings.Fields(string(out))
		for _, h := range heavy {
			if slices.Contains(deps, h) && needed[name] != h {
				t.Errorf("%s depends on %s, which costs time at every start", name, h)
			}
		}
	}
}

// TestMainsAreWiring keeps logic out of the commands.
func TestMainsAreWiring(t *testing.T) {
	mains, err := filepath.Glob("cmd/*/main.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mains {
		b, err := os.ReadFile(m)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(b, []byte("\n")); n > 40 {
			t.Errorf("%s has %d lines, more than 40: move what it does into a package", m, n)
		}
	}
}

func TestPackageNamesAndDocs(t *testing.T) {
	vague := []string{"util", "utils", "common", "helpers", "types", "models", "pkg", "misc", "shared"}
	for _, p := range listPackages(t) {
		for _, part := range strings.Split(p.rel(), "/") {
			if slices.Contains(vague, part) {
				t.Errorf("%s: %q says nothing about what lives there", p.ImportPath, part)
			}
		}
		if len(p.GoFiles) == 0 {
			continue // a package of tests, or of another OS
		}
		documented := false
		for _, f := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			documented = documented || isPackageDoc(file.Doc, p.Name)
		}
		if !documented {
			t.Errorf("%s has no package documentation (\"Package %s …\" or \"Command …\")", p.ImportPath, p.Name)
		}
	}
}

func isPackageDoc(doc *ast.CommentGroup, name string) bool {
	text := doc.Text()
	return strings.HasPrefix(text, "Package "+name+" ") || (name == "main" && strings.HasPrefix(text, "Command "))
}

// TestSourceHeaders wants the licence on every file that a person wrote.
func TestSourceHeaders(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata" || d.Name() == ".cache") {
			return filepath.SkipDir
		}
		if ext := filepath.Ext(path); d.IsDir() || (ext != ".go" && ext != ".c" && ext != ".h" && ext != ".S") {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		head, _, _ := bytes.Cut(b, []byte("\npackage "))
		if !bytes.Contains(head[:min(len(head), 600)], []byte("SPDX-License-Identifier: Apache-2.0")) {
			t.Errorf("%s: no SPDX-License-Identifier line", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
