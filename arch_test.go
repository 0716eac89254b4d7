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
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/palisade-sec/palisade"

// at is a place in the house: a layer, and a floor within it where a layer has
// several. An import goes down.
type at struct{ layer, floor int }

// packages is the closed list of packages, the table of ARCHITECTURE.md: a new
// package is put into the house on purpose, and what is gone leaves no row.
var packages = map[string]at{
	// Layer 0, the vocabulary.
	"caps": {0, 0}, "cbpf": {0, 0}, "denial": {0, 0}, "diag": {0, 0}, "internal/strictjson": {0, 0}, "selinux": {0, 0}, "target": {0, 0},

	// Layer 1, the mechanisms: pure.
	"apparmor": {1, 0}, "apparmor/blob": {1, 0}, "apparmor/compile": {1, 0}, "apparmor/decide": {1, 0}, "apparmor/dfa": {1, 0},
	"internal/laststep": {1, 0}, // what the last step is told; its bytes
	"landlock":          {1, 0},
	"policy":            {1, 0},
	"seccomp":           {1, 0}, "seccomp/syscalls": {1, 0},
	"selinux/analysis": {1, 0}, "selinux/container": {1, 0}, "selinux/filecontext": {1, 0}, "selinux/policydb": {1, 0}, "selinux/ss": {1, 0},
	"shield/attest": {1, 0}, "shield/sealfs": {1, 0},

	// Layer 2, what is made of several mechanisms: pure.
	"audit": {2, 0}, "bundle": {2, 0}, "svirt": {2, 0}, "svirt/libvirt": {2, 0},

	// Layer 3, the edges. Floor 0: one thing of the kernel or of the file system, and
	// nothing of Palisade's own state.
	"apparmor/securityfs": {3, 0}, "landlock/install": {3, 0}, "seccomp/install": {3, 0}, "seccomp/record": {3, 0},
	"selinux/relabel": {3, 0}, "selinux/selinuxfs": {3, 0},
	"internal/atomicfile": {3, 0}, "internal/hold": {3, 0}, "internal/hostfacts/bpflsm": {3, 0},
	"internal/registry/bolt": {3, 0}, "internal/registry/socket": {3, 0},
	"shield/session": {3, 0}, "shield/shim": {3, 0}, "shield/tee": {3, 0}, "shield/volfile": {3, 0},
	// Floor 1: readers of the host and of processes; files edited; the last step handed over.
	"internal/configfile": {3, 1}, "internal/effective": {3, 1}, "internal/gate": {3, 1}, "internal/handover": {3, 1},
	"internal/hostfacts": {3, 1}, "internal/observe": {3, 1}, "internal/registry/authority": {3, 1},
	// Floors 2 to 6: containers as they were written down, and what is done by that.
	"internal/state":          {3, 2},
	"internal/launch/profile": {3, 3}, "internal/settings": {3, 3},
	"internal/witness":  {3, 4},
	"internal/delegate": {3, 5},
	"internal/gc":       {3, 6},
	// Floor 7: the one way into a container; floor 8: what tells it to start one, and tools.
	"internal/launch":     {3, 7},
	"internal/engine/oci": {3, 8},
	"internal/image":      {3, 8}, "internal/probe": {3, 8},
	// Floor 9: what the command line calls, and the engine that judges mounts as OCI's are.
	"internal/engine/lxc": {3, 9},
	"internal/container":  {3, 9}, "internal/enable": {3, 9}, "internal/integrate": {3, 9},

	// Layer 4, the application: what answers, the nouns, the list of them.
	"internal/cli/answer": {4, 0}, "internal/daemon": {4, 0},
	"internal/cli/apparmor": {4, 1}, "internal/cli/host": {4, 1}, "internal/cli/label": {4, 1}, "internal/cli/run": {4, 1},
	"internal/cli/seccomp": {4, 1}, "internal/cli/selinux": {4, 1}, "internal/cli/shield": {4, 1},
	"internal/cli": {4, 2},

	// Layer 5, wiring.
	"cmd/palisade": {5, 0}, "cmd/palisade-lxc": {5, 0}, "cmd/palisade-oci": {5, 0},
}

// testOnly packages serve tests; no other code may import them.
var testOnly = []string{"internal/await", "internal/debian", "internal/enginetest", "internal/escapes", "internal/freestanding", "internal/mutate", "internal/oracle", "internal/selinuxtest", "internal/suites", "internal/vmtest"}

// sameLayer lists imports between packages of one layer that are in different
// rooms (top-level folders), each with its reason. Floors order them all the same.
var sameLayer = map[string]string{
	"internal/container selinux/relabel":          "a volume with :Z is relabelled as 'palisade relabel' does it",
	"internal/effective selinux/selinuxfs":        "which label a process has is the kernel's answer, and this is its reader",
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

func room(rel string) string {
	t, _, _ := strings.Cut(rel, "/")
	return t
}

// TestPackagesAreListed wants one row for each package and one package for each row.
func TestPackagesAreListed(t *testing.T) {
	there := map[string]bool{}
	for _, p := range listPackages(t) {
		rel := p.rel()
		if rel == "" {
			continue // the root, which has these tests
		}
		there[rel] = true
		_, listed := packages[rel]
		if test := slices.Contains(testOnly, rel); listed == test {
			t.Errorf("%s is in no row, or in two: put it into ARCHITECTURE.md and into the table of this test", rel)
		}
	}
	for _, rel := range slices.Concat(slices.Sorted(maps.Keys(packages)), testOnly) {
		if there[rel] {
			continue
		}
		// Not listed is also what is for another system than this one.
		if files, err := filepath.Glob(filepath.Join(filepath.FromSlash(rel), "*.go")); err != nil || len(files) == 0 {
			t.Errorf("%s has a row and is no package: take the row out", rel)
		}
	}
}

// TestLayers wants every import to go down: to a lower layer, to a lower floor of
// the same layer, or to a package of the same mechanism where a layer has one floor.
func TestLayers(t *testing.T) {
	used := map[string]bool{}
	for _, p := range listPackages(t) {
		rel := p.rel()
		if rel == "" || slices.Contains(testOnly, rel) {
			continue
		}
		here, listed := packages[rel]
		if !listed {
			continue // TestPackagesAreListed complains
		}
		for _, imp := range p.Imports {
			if dep, ours := strings.CutPrefix(imp, module+"/"); ours {
				if slices.Contains(testOnly, dep) {
					t.Errorf("%s imports %s, which is for tests", rel, dep)
					continue
				}
				there := packages[dep]
				switch sideways := there.layer == here.layer && room(dep) != room(rel); {
				case there.layer > here.layer || there.layer == here.layer && there.floor > here.floor:
					t.Errorf("%s (%v) imports %s (%v): an arrow that runs up", rel, here, dep, there)
				case there == here && here.layer >= 3:
					t.Errorf("%s and %s are both on floor %v: give one of them another, or move what they share down", rel, dep, here)
				case sideways && sameLayer[rel+" "+dep] == "":
					t.Errorf("%s and %s are both of layer %d: move what they share down, or give the reason in sameLayer", rel, dep, here.layer)
				case sideways:
					used[rel+" "+dep] = true
				}
				continue
			}
			if imp == "testing" {
				t.Errorf("%s imports testing outside of tests", rel)
			}
			if reason, bad := forbidden[imp]; bad && here.layer <= 2 {
				t.Errorf("%s (layer %d) imports %s: %s", rel, here.layer, imp, reason)
			}
			external := strings.Contains(strings.SplitN(imp, "/", 2)[0], ".")
			if external && here.layer <= 1 && !strings.HasPrefix(imp, "golang.org/x/") && thirdParty[rel+" "+imp] == "" {
				t.Errorf("%s (layer %d) imports %s: layers 0 and 1 stand on the standard library", rel, here.layer, imp)
			}
			if external && here.layer == 0 && thirdParty[rel+" "+imp] == "" {
				t.Errorf("%s (layer 0) imports %s: the vocabulary stands on the standard library", rel, imp)
			}
		}
	}
	for _, k := range slices.Sorted(maps.Keys(sameLayer)) {
		if !used[k] {
			t.Errorf("no package imports %q: take it out of sameLayer", k)
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
