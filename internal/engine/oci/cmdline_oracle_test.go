// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// verdict is what a real runtime made of a command line.
type verdict struct {
	kind    string // action, help, version or error
	command string
	global  []tookOption
	options []tookOption
	args    []string
	err     string
}

// tookOption is one option that the runtime took.
type tookOption struct {
	name   string
	values []string
}

// peer is a real runtime that answers for one command line after the other.
type peer struct {
	version string
	in      io.Writer
	out     *bufio.Scanner
	request func(letter string, args []string) string
	answer  func() (verdict, map[string][]string, error)
}

func (p *peer) ask(tb testing.TB, args []string) verdict {
	tb.Helper()
	v, _ := p.send(tb, "P", args)
	return v
}

func (p *peer) send(tb testing.TB, letter string, args []string) (verdict, map[string][]string) {
	tb.Helper()
	if _, err := io.WriteString(p.in, p.request(letter, args)+"\n"); err != nil {
		tb.Fatalf("ask the runtime about %q: %v", args, err)
	}
	v, table, err := p.answer()
	if err != nil {
		tb.Fatalf("answer of the runtime about %q: %v", args, err)
	}
	return v, table
}

// start runs the program that answers until the test ends.
func (p *peer) start(tb testing.TB, path string, env ...string) {
	tb.Helper()
	cmd := exec.Command(path)
	cmd.Dir = tb.TempDir()
	cmd.Env = append(cleanEnvironment(os.Environ()), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	p.in, p.out = in, bufio.NewScanner(out)
	p.out.Buffer(nil, 1<<24)
}

// runcPeer builds runc's parser from its module.
func runcPeer(tb testing.TB, version string) *peer {
	tb.Helper()
	p := &peer{version: strings.TrimPrefix(version, "v")}
	p.start(tb, buildRunc(tb, version))
	p.request = func(letter string, args []string) string {
		var b strings.Builder
		b.WriteString(letter)
		for _, a := range args {
			b.WriteString("." + base64.StdEncoding.EncodeToString([]byte(a)))
		}
		return b.String()
	}
	p.answer = func() (v verdict, table map[string][]string, err error) {
		if !p.out.Scan() {
			return v, nil, io.ErrUnexpectedEOF
		}
		var t struct {
			Kind, Command   string
			Global, Options map[string][][]byte
			Args            [][]byte
			Error           string
			Table           map[string][]string
		}
		if err := json.Unmarshal(p.out.Bytes(), &t); err != nil {
			return v, nil, err
		}
		v = verdict{kind: t.Kind, command: t.Command, err: t.Error}
		for _, side := range []struct {
			from map[string][][]byte
			to   *[]tookOption
		}{{t.Global, &v.global}, {t.Options, &v.options}} {
			for name, values := range side.from {
				g := tookOption{name: name}
				for _, b := range values {
					g.values = append(g.values, string(b))
				}
				*side.to = append(*side.to, g)
			}
		}
		for _, b := range t.Args {
			v.args = append(v.args, string(b))
		}
		return v, t.Table, nil
	}
	return p
}

// buildRunc copies the module, and turns its main package into one that only
// parses.
func buildRunc(tb testing.TB, version string) string {
	tb.Helper()
	module := oracle.Module(tb, "github.com/opencontainers/runc@"+version)
	ours, err := os.ReadFile("testdata/cmdline/runc.go.txt")
	if err != nil {
		tb.Fatal(err)
	}
	sum := sha256.Sum256([]byte(version + runtime.Version() + string(ours)))
	bin := filepath.Join(oracle.CacheDir(tb, "cmdline"), "runc-"+version+"-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(bin); err == nil {
		return bin
	}
	src := tb.TempDir()
	if err := os.CopyFS(src, slimFS{os.DirFS(module)}); err != nil {
		tb.Fatal(err)
	}
	edits := map[string][][2]string{
		"utils.go": {{"func checkArgs(", "func runcCheckArgs("}, {"os.Exit(", "oracleExit("}},
		"main.go":  {{"func main()", "func runcMain()"}, {"os.OpenFile(file,", "oracleOpen(file,"}},
		"init.go":  {{`_ "github.com/opencontainers/runc/libcontainer/nsenter"`, ""}},
	}
	for name, pairs := range edits {
		b, err := os.ReadFile(filepath.Join(src, name))
		if err != nil {
			tb.Fatal(err)
		}
		text := string(b)
		for _, pair := range pairs {
			if n := strings.Count(text, pair[0]); n != 1 && !(n == 0 && strings.HasPrefix(version, "v1.0.")) {
				// 1.0 opens its log elsewhere: ask it for its table alone.
				tb.Fatalf("runc %s: %s has %q %d times, want 1", version, name, pair[0], strings.Count(text, pair[0]))
			}
			text = strings.Replace(text, pair[0], pair[1], 1)
		}
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(src, "palisade_oracle.go"), ours, 0o644); err != nil {
		tb.Fatal(err)
	}
	tmp := bin + "." + strconv.Itoa(os.Getpid())
	cmd := exec.Command(oracle.Tool(tb, "go", "https://go.dev/dl"), "build", "-mod=readonly", "-o", tmp, ".")
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1", "GOFLAGS=", "GOWORK=off", "GOTOOLCHAIN=local")
	if out, err := cmd.CombinedOutput(); err != nil {
		oracle.Missing(tb, "cannot build runc %s (apt: gcc libc6-dev): %v\n%s", version, err, out)
	}
	if err := os.Rename(tmp, bin); err != nil {
		tb.Fatal(err)
	}
	return bin
}

// slimFS is a file system whose files the copy may change, without what the
// build does not need.
type slimFS struct{ fs.FS }

func (w slimFS) Open(name string) (fs.File, error) {
	f, err := w.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return slimFile{f}, nil
}

func (w slimFS) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(w.FS, name)
	var out []fs.DirEntry
	for _, e := range all {
		if n := e.Name(); n != "vendor" && n != "tests" && n != "contrib" && !strings.HasSuffix(n, "_test.go") {
			out = append(out, e)
		}
	}
	return out, err
}

type slimFile struct{ fs.File }

func (f slimFile) Stat() (fs.FileInfo, error) {
	fi, err := f.File.Stat()
	if err != nil {
		return nil, err
	}
	return slimInfo{fi}, nil
}

type slimInfo struct{ fs.FileInfo }

func (i slimInfo) Mode() fs.FileMode { return i.FileInfo.Mode() | 0o200 }

// crunPeer is the installed crun with a library before its own argp.
func crunPeer(tb testing.TB) *peer {
	tb.Helper()
	path := oracle.Tool(tb, "crun", "apt: crun")
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		tb.Fatal(err)
	}
	var p peer
	if _, err := fmt.Sscanf(string(out), "crun version %s\n", &p.version); err != nil {
		tb.Fatalf("crun --version: %q: %v", out, err)
	}
	library := oracle.CHelper(tb, "testdata/cmdline/argp.c", "apt: gcc libc6-dev", "-shared", "-fPIC", "-ldl")
	p.start(tb, path, "LD_PRELOAD="+library)
	p.request = func(letter string, args []string) string {
		var b strings.Builder
		b.WriteString(letter)
		for _, a := range args {
			b.WriteString("." + hex.EncodeToString([]byte(a)))
		}
		return b.String()
	}
	// The keys of the options before the command, and of each command.
	keys := map[string]map[string]string{}
	p.answer = func() (v verdict, table map[string][]string, err error) {
		passed, asked := false, "help"
		table = map[string][]string{}
		for p.out.Scan() {
			w := strings.Split(p.out.Text(), " ")
			place := ""
			if len(w) > 1 && w[1] == "2" {
				place = v.command
			}
			switch w[0] {
			case "c":
				v.command = w[1]
			case "r":
				b, err := hex.DecodeString(w[1])
				if err != nil {
					return v, nil, err
				}
				v.args = append(v.args, string(b))
			case "t":
				row := table[place]
				table[place] = append(row, strings.Join(w[2:], " "))
				if keys[place] == nil {
					keys[place] = map[string]string{}
				}
				if _, had := keys[place][w[2]]; !had && w[5] != "-" {
					keys[place][w[2]] = w[5]
				}
			case "o":
				name := keys[place][w[2]]
				if w[2] == "86" {
					name = "version"
				}
				if name == "" {
					return v, nil, fmt.Errorf("option key %q of %q is not in the table", w[2], place)
				}
				if name == "version" {
					asked = "version"
				}
				value := "true"
				if w[3] != "-" {
					b, err := hex.DecodeString(w[3])
					if err != nil {
						return v, nil, err
					}
					value = string(b)
				}
				if w[2] == "116" { // exec -t
					value = strconv.FormatBool(value != "false" && value != "no")
				}
				if place == "" && v.command == "" {
					v.global = append(v.global, tookOption{name, []string{value}})
				} else {
					v.options = append(v.options, tookOption{name, []string{value}})
				}
			case "passed":
				passed = true
			case "end":
				switch {
				case passed:
					v.kind = "action"
				case w[1] == "0":
					v.kind = asked
				default:
					v.kind, v.err = "error", "exit status "+w[1]
				}
				return v, table, nil
			}
		}
		return v, nil, io.ErrUnexpectedEOF
	}
	// Learn the keys.
	for _, c := range crunGrammar("").Commands {
		p.send(tb, "T", []string{c.Name, "id", "id"})
	}
	return &p
}
