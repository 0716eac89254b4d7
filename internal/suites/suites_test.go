// SPDX-License-Identifier: Apache-2.0

package suites

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/enginetest"
	"github.com/palisade-sec/palisade/internal/oracle"
)

// Reasons of tests that pass alone and fail below Palisade.
const (
	noCapability = "the policy does not have the capability that the test wants"
	noInherit    = "of the inheritable set only what the ambient set needs is left"
	noNewPrivs   = "the policy sets no_new_privs on every process"
	blockDevice  = "the policy makes no block devices, where the device control group allows it"
	ownHelp      = "help and version are those of palisade-oci, with what the runtime takes"
	ownCode      = "refused, as by the runtime, with the exit code of palisade-oci"
	ownFilter    = "the policy's filter refuses the system call that the engine's allows"
	strictNames  = "a member of the configuration in another case than the specification's is refused"
	onlyTighten  = "an annotation, which an image can bring, does not give the container the caller's groups"
	oneMore      = "palisade-oci says in a line more that the command was not executed"
	noNamespace  = "the policy masks paths, for which a container has to have a mount namespace"
	moreFiles    = "the limit of open files is what the runtime alone needs, and it has three more"
	sourceThere  = "what a bind mount shows is compared with what was asked for, and has to be there before the container is"
	notRaised    = "an ambient capability that the kernel would not raise is left out before, and nothing is left to warn of"
	ownStep      = "the last step installs the filter, and the runtime's log says nothing of it"
	lastStep     = "the last step's two files, sealed and in memory, are open in the runtime while it runs the hook"
)

// Reasons of tests that are not compared.
const numbersOfFive = "wants a process number of five digits"

// runcDiffers are tests of runc that pass alone and fail below Palisade, by file and
// name.
var runcDiffers = map[string]string{
	"capabilities.bats: runc run with new privileges":                                       noNewPrivs,
	"capabilities.bats: runc run with some capabilities":                                    noCapability,
	"capabilities.bats: runc exec --cap [ambient is set from spec]":                         noInherit,
	"capabilities.bats: runc run [ambient caps not set in inheritable result in a warning]": notRaised,
	"dev.bats: runc run [device cgroup allow rw char device]":                               noCapability,
	"dev.bats: runc run [device cgroup allow rm block device]":                              blockDevice,
	"exec.bats: runc exec [execve error]":                                                   oneMore,
	"help.bats: runc -h":                                                                    ownHelp,
	"help.bats: runc command -h":                                                            ownHelp,
	"help.bats: runc foo -h":                                                                ownHelp,
	"host-mntns.bats: runc run [host mount ns + hooks]":                                     noNamespace,
	"mask.bats: mask paths [prohibit symlink /proc]":                                        ownCode,
	"mask.bats: mask paths [prohibit symlink /sys]":                                         ownCode,
	"mounts.bats: runc run [/proc is a symlink]":                                            ownCode,
	"mounts.bats: runc run [mount order, container bind-mount source]":                      sourceThere,
	"mounts.bats: runc run [mount order, container bind-mount source] (userns)":             sourceThere,
	"mounts.bats: runc run [mount order, container idmap source]":                           sourceThere,
	"mounts.bats: runc run [mount order, container idmap source] (userns)":                  sourceThere,
	"no_pivot.bats: runc run --no-pivot must not expose bare /proc":                         ownFilter,
	"run.bats: runc run [execve error]":                                                     oneMore,
	"idmap.bats: Check mount source fds are cleaned up with idmapped mounts [userns]":       moreFiles,
	"seccomp-notify.bats: runc run [seccomp] (SCMP_ACT_NOTIFY startContainer hook)":         lastStep,
	"seccomp.bats: runc run [seccomp -ENOSYS handling]":                                     ownFilter,
	"seccomp.bats: runc run [seccomp] (SECCOMP_FILTER_FLAG_*)":                              ownStep,
	"update.bats: update cpuset parameters via resources.CPU":                               strictNames,
	"version.bats: runc version":                                                            ownHelp,
}

// crunDiffers is the same for crun.
var crunDiffers = map[string]string{
	"test_capabilities.py: some-caps-inheritable":          noInherit,
	"test_capabilities.py: some-caps-inheritable-non-root": noInherit,
	"test_exec.py: exec_add_no_new_privileges":             noNewPrivs,
	"test_uid_gid.py: keep-groups":                         onlyTighten,
}

// crunAdapted replaces a capability that the policy does not have, so that the rest of
// the test counts.
var crunAdapted = strings.NewReplacer("CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "0000000000200000", "0000000000040000")

// notCompared are tests whose outcome depends on something else than the runtime.
var notCompared = map[string]string{"test_exec.py: exec_write_pid_file": numbersOfFive}

// tapLine is one test's outcome.
//
// Source: testanything.org, TAP version 12.
var tapLine = regexp.MustCompile(`^(not ok|ok) \d+ (?:- )?(.*?)(?: in \d+m?s(?:ec)?)?( ?# ?(?i:skip).*)?$`)

const skipped = "skip"

// explained are the rows that explained a difference.
var explained = map[string]bool{}

// checkRows wants each row to explain something, when everything was run.
func checkRows(t *testing.T, differs map[string]string) {
	t.Helper()
	if os.Getenv(envAll) == "" || t.Failed() || t.Skipped() {
		return
	}
	for key, reason := range differs {
		if !explained[key] {
			t.Errorf("%s: passes now; it was said to fail: %s", key, reason)
		}
	}
}

// readTAP returns each test's outcome.
func readTAP(text string) map[string]string {
	out := map[string]string{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		m := tapLine.FindStringSubmatch(strings.TrimRight(lines.Text(), "\r"))
		if m == nil {
			continue
		}
		name, outcome := strings.TrimSpace(m[2]), m[1]
		if m[3] != "" {
			outcome = skipped
		}
		out[name] = outcome
	}
	return out
}

func TestReadTAP(t *testing.T) {
	got := readTAP("1..5\nok 1 a b\nnot ok 2 - c\n# ok 9 no\nok 3 d # skip test requires x\nok 4 - e #SKIP\r\nok 5 f in 12ms\n")
	want := map[string]string{"a b": "ok", "c": "not ok", "d": skipped, "e": skipped, "f": "ok"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// score counts what a suite has shown.
type score struct{ tests, alone, below, skipped, explained int }

// judge compares the outcomes of one file. text is what the file said below Palisade.
func (s *score) judge(t *testing.T, file string, alone, below map[string]string, differs map[string]string, text string) {
	t.Helper()
	if len(alone) == 0 && !strings.Contains(text, "1..0") { // what it needs is not here
		t.Errorf("%s: no test ran\n%s", file, text)
	}
	for name, outcome := range alone {
		key := file + ": " + name
		s.tests++
		if notCompared[key] != "" {
			continue
		}
		switch {
		case outcome == skipped:
			s.skipped++
		case outcome == "ok":
			s.alone++
		}
		got := below[name]
		if got == "ok" {
			s.below++
		}
		reason := differs[key]
		switch {
		case outcome == "ok" && got != "ok" && reason == "":
			t.Errorf("%s: passes alone, and below Palisade: %q\n%s", key, got, text)
		case outcome == "ok" && got != "ok":
			s.explained++
			explained[key] = true
		}
	}
}

func (s *score) String() string {
	return fmt.Sprintf("%d tests: %d pass alone, %d below Palisade, %d differ for a reason, %d skipped", s.tests, s.alone, s.below, s.explained, s.skipped)
}

// copyTree copies a tree of sources to where it can be written, below a folder of the
// cache that is named by what is in it.
func copyTree(t *testing.T, from, to string, then func(dir string)) {
	t.Helper()
	if _, err := os.Stat(to); err == nil {
		return
	}
	tmp, err := os.MkdirTemp(filepath.Dir(to), "tmp-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	dir := filepath.Join(tmp, "tree")
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	then(dir)
	if err := os.Rename(dir, to); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTEMPTY) {
		t.Fatal(err)
	}
}

func command(t *testing.T, dir string, env []string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		oracle.Missing(t, "%s %q: %v\n%s", name, args, err, out[max(0, len(out)-2000):])
	}
}

// builtRunc is where runc is in its tree.
const builtRunc = "_runc"

// runcTree is the source of a version of runc, with the programs that its tests use
// and, in the place of the images that they download, one that the test makes.
func runcTree(t *testing.T, version string, h *enginetest.Host) string {
	t.Helper()
	goTool := oracle.Tool(t, "go", "https://go.dev/dl")
	oracle.Tool(t, "cc", "apt: gcc libc6-dev libseccomp-dev pkg-config")
	oracle.Tool(t, "xz", "apt: xz-utils")
	dir := filepath.Join(oracle.CacheDir(t, "suites"), "runc-"+version+"-2")
	copyTree(t, oracle.Module(t, "github.com/opencontainers/runc@v"+version), dir, func(dir string) {
		env := []string{"GOFLAGS=-mod=mod", "GOWORK=off", "CGO_ENABLED=1"}
		command(t, dir, env, goTool, "build", "-tags", "seccomp", "-o", builtRunc, ".")
		if _, err := os.Stat(filepath.Join(dir, "tests/cmd")); err == nil {
			if err := os.Mkdir(filepath.Join(dir, "tests/cmd/_bin"), 0o755); err != nil {
				t.Fatal(err)
			}
			command(t, dir, env, goTool, "build", "-tags", "seccomp", "-o", "tests/cmd/_bin/", "./tests/cmd/...")
		} else {
			for _, name := range []string{"recvtty", "sd-helper", "seccompagent"} {
				command(t, dir, env, goTool, "build", "-tags", "seccomp", "-o", "contrib/cmd/"+name+"/"+name, "./contrib/cmd/"+name)
			}
		}
		for _, pattern := range []string{"tests/integration/*.sh", "contrib/cmd/*/*.sh", "tests/cmd/*/*.sh"} {
			scripts, _ := filepath.Glob(filepath.Join(dir, pattern))
			for _, s := range scripts { // they are not executable in a module
				if err := os.Chmod(s, 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, image := range []string{"busybox", "debian"} {
			command(t, dir, nil, "tar", "-C", h.Root, "-cJf", "tests/integration/testdata/"+image+"-amd64.tar.xz", ".")
		}
	})
	return dir
}

// wrapped is a script that calls a runtime below Palisade.
func wrapped(t *testing.T, h *enginetest.Host, alone string) (below string) {
	t.Helper()
	below = filepath.Join(h.Work, "palisade-below")
	script := fmt.Sprintf("#!/bin/sh\nexec %s/palisade-oci --palisade-runtime=%s --palisade-state=%s/state \"$@\"\n", h.Bin, alone, h.Work)
	if err := os.WriteFile(below, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return below
}

// output runs a command that may fail and returns what it says.
func output(t *testing.T, h *enginetest.Host, dir string, env []string, name string, args ...string) string {
	t.Helper()
	const most = 15 * time.Minute
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(slices.Clone(h.Env), env...)
	// A file, not a pipe: what a test leaves behind must not keep us waiting.
	f, err := os.CreateTemp(h.Work, "output")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// files are the suite's files: all of them, or a few that take seconds.
func files(t *testing.T, pattern string, few ...string) []string {
	t.Helper()
	if os.Getenv(envAll) == "" {
		return few
	}
	all, err := filepath.Glob(pattern)
	if err != nil || len(all) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(all), err)
	}
	for i := range all {
		all[i] = filepath.Base(all[i])
	}
	return all
}

// TestConfirmRuncSuite runs runc's integration tests.
func TestConfirmRuncSuite(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds for each test of a few")
	}
	oracle.Tool(t, "bats", "apt: bats")
	for _, tool := range []string{"jq", "gawk", "script"} {
		oracle.Tool(t, tool, "apt: jq gawk bsdutils")
	}
	for _, version := range runcVersions() {
		t.Run(version, func(t *testing.T) { runcSuite(t, version) })
	}
	checkRows(t, runcDiffers)
}

// runcVersions are that of Debian 12 and one of today, whose sources are published as
// modules.
func runcVersions() []string {
	if os.Getenv(envAll) == "" {
		return []string{"1.1.5"}
	}
	return []string{"1.1.5", "1.5.2"}
}

func runcSuite(t *testing.T, version string) {
	h := newSide(t)
	tree := runcTree(t, version, h)
	alone := filepath.Join(tree, builtRunc)
	below := wrapped(t, h, alone)
	var s score
	for _, file := range files(t, filepath.Join(tree, "tests/integration/*.bats"), "start.bats") {
		run := func(side, runtime string) string {
			tmp := filepath.Join(h.Work, side)
			if err := os.MkdirAll(tmp, 0o755); err != nil {
				t.Fatal(err)
			}
			// The tests want a terminal.
			line := fmt.Sprintf("bats --tap %s", filepath.Join(tree, "tests/integration", file))
			return output(t, h, tree, []string{"TMPDIR=" + tmp, "RUNC=" + runtime}, "script", "-qec", line, "/dev/null")
		}
		bare, confined := run("alone", alone), run("below", below)
		s.judge(t, file, readTAP(bare), readTAP(confined), runcDiffers, confined)
	}
	t.Log(s.String())
}

// TestConfirmCrunSuite runs crun's tests. crun takes no second hierarchy of control
// groups beside those of version 1: it is hidden from it.
func TestConfirmCrunSuite(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds for each test of a few")
	}
	python := oracle.Tool(t, "python3", "apt: python3")
	h := newSide(t)
	alone := oracle.Tool(t, "crun", "apt: crun")
	below := wrapped(t, h, alone)
	source, version := debian.OpenSources(t, "bookworm").Source(t, "crun")
	cc := oracle.Tool(t, "cc", "apt: gcc libc6-dev libseccomp-dev")
	tree := filepath.Join(oracle.CacheDir(t, "suites"), "crun-"+version+"-1")
	copyTree(t, source, tree, func(dir string) {
		// What configure would find out plays no part in the program that runs inside.
		if err := os.WriteFile(filepath.Join(dir, "config.h"), []byte("#define HAVE_SECCOMP 1\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		command(t, dir, nil, cc, "-O1", "-w", "-static", "-I.", "-o", "tests/init", "tests/init.c")
		tests, _ := filepath.Glob(filepath.Join(dir, "tests/test_*.py"))
		for _, name := range tests {
			b, err := os.ReadFile(name)
			if err == nil {
				err = os.WriteFile(name, []byte(crunAdapted.Replace(string(b))), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	var s score
	const hide = `if [ -e /sys/fs/cgroup/unified ]; then umount /sys/fs/cgroup/unified; fi; exec "$@"`
	for _, file := range files(t, filepath.Join(tree, "tests/test_*.py"), "test_pid.py", "test_hostname.py", "test_cwd.py") {
		run := func(runtime string) string {
			work, err := os.MkdirTemp(h.Work, "crun")
			if err != nil {
				t.Fatal(err)
			}
			return output(t, h, work, []string{"OCI_RUNTIME=" + runtime, "INIT=" + tree + "/tests/init", "TMPDIR=" + work},
				"unshare", "-m", "sh", "-c", hide, "sh", python, "-B", filepath.Join(tree, "tests", file))
		}
		bare, confined := run(alone), run(below)
		s.judge(t, file, readTAP(bare), readTAP(confined), crunDiffers, confined)
	}
	t.Log(s.String())
	checkRows(t, crunDiffers)
}
