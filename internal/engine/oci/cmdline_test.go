// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func grammars() map[string]*grammar {
	return map[string]*grammar{
		"runc":      runcGrammar(reorderKnownOptions),
		"runc 1.1":  runcGrammar(reorderDashes).at("1.1.15"),
		"runc any":  runcGrammar(reorderUnknown),
		"crun":      crunGrammar(""),
		"crun 1.8":  crunGrammar("1.8.1"),
		"crun 1.29": crunGrammar("1.29"),
		"youki":     youkiGrammar(),
	}
}

// TestParse has the smallest command lines whose guess let a container start
// unconfined or with another bundle.
func TestParse(t *testing.T) {
	tests := []struct {
		grammar string
		line    string
		want    string // the rebuilt line
		refused syntaxReason
		id      string
		role    role
	}{
		// Options behind the ID.
		{"runc", "run ID --bundle B", "run --bundle=B -- ID", 0, "ID", roleRun},
		{"runc 1.1", "run ID --bundle B", "run --bundle=B -- ID", 0, "ID", roleRun},
		{"runc any", "run ID --bundle B", "run --bundle=B -- ID", 0, "ID", roleRun},
		{"crun", "run ID --bundle B", "", tooManyArguments, "", 0},
		{"youki", "run ID --bundle B", "run --bundle=B -- ID", 0, "ID", roleRun},
		// A switch takes the next word with it.
		{"runc", "run --detach ID --bundle B", "", tooManyArguments, "", 0},
		{"runc", "run ID --detach", "run --detach=true -- ID", 0, "ID", roleRun},
		// The dash of one build is an argument of the other.
		{"runc", "kill ID -9", "kill -- ID -9", 0, "ID", rolePass},
		{"runc 1.1", "kill ID -9", "", unknownOption, "", 0},
		{"runc any", "kill ID -9", "kill -- ID -9", 0, "ID", rolePass},
		{"runc", "kill -a -- X -a", "kill --all=true -- -a X", 0, "-a", rolePass},
		{"runc 1.1", "kill -a -- X -a", "kill --all=true -- X -a", 0, "X", rolePass},
		{"runc any", "kill -a -- X -a", "", ambiguousOrder, "", 0},
		{"runc any", "exec --env= --env=A ID cmd", "", ambiguousOrder, "", 0},
		{"runc any", "exec --env= ID cmd", "exec --env= -- ID cmd", 0, "ID", roleExec},
		// Abbreviations.
		{"crun 1.8", "run --bund=B ID", "run --bundle=B -- ID", 0, "ID", roleRun},
		{"crun 1.8", "exec --use 0 ID cmd", "exec --user=0 -- ID cmd", 0, "ID", roleExec},
		{"crun 1.8", "exec --process ID", "", missingArgument, "", 0},
		{"crun 1.8", "exec --pro F ID", "", ambiguousOption, "", 0},
		{"crun 1.8", "exec --process F ID", "exec --process=F -- ID", 0, "ID", roleExec},
		{"crun 1.8", "run --pro=x ID", "", refused, "", 0},
		{"crun 1.8", "--roo=R list", "--root=R list", 0, "", rolePass},
		{"crun 1.8", "--rootl=R list", "--root=R list", 0, "", rolePass}, // as that version reads it
		{"crun 1.29", "--roo=R list", "", ambiguousOption, "", 0},
		{"crun 1.29", "--rootless=R list", "--rootless=R list", 0, "", rolePass},
		{"runc", "run --bund=B ID", "", unknownOption, "", 0},
		{"youki", "run --bund=B ID", "", unknownOption, "", 0},
		// Joined letters.
		{"crun", "run -bB ID", "run --bundle=B -- ID", 0, "ID", roleRun},
		{"crun", "run -b=B ID", "run --bundle==B -- ID", 0, "ID", roleRun},
		{"crun", "run -dbB ID", "run --detach --bundle=B -- ID", 0, "ID", roleRun},
		{"crun", "exec -pFILE ID", "exec --process=FILE -- ID", 0, "ID", roleExec},
		{"crun", "exec -cCAP_SYS_ADMIN ID cmd", "exec --cap=CAP_SYS_ADMIN -- ID cmd", 0, "ID", roleExec},
		{"crun", "exec -td ID cmd", "exec --tty -- ID cmd", 0, "ID", roleExec}, // d is the terminal's value
		{"crun", "exec -tfalse ID cmd", "exec --tty=false -- ID cmd", 0, "ID", roleExec},
		{"runc", "run -bB ID", "", unknownOption, "", 0},
		{"youki", "exec -td ID cmd", "exec --tty --detach -- ID cmd", 0, "ID", roleExec},
		{"youki", "run -bB ID", "run --bundle=B -- ID", 0, "ID", roleRun},
		{"youki", "run -b=B ID", "run --bundle=B -- ID", 0, "ID", roleRun},
		// Options before the command, with values.
		{"runc", "--root create run ID", "--root=create run -- ID", 0, "ID", roleRun},
		{"runc", "-r DIR create ID", "", unknownOption, "", 0},
		{"crun", "-r DIR create ID", "", unknownOption, "", 0},
		{"youki", "-r DIR create ID", "--root=DIR create -- ID", 0, "ID", roleCreate},
		{"runc", "--network host run ID", "", unknownOption, "", 0},
		{"crun", "--network host run ID", "", unknownOption, "", 0},
		{"runc", "-- run ID", "run -- ID", 0, "ID", roleRun},
		// Confinement that an option would choose.
		{"runc", "exec --process-label X ID cmd", "exec --process-label=X -- ID cmd", 0, "ID", roleExec},
		{"crun", "exec --process-l X ID cmd", "exec --process-label=X -- ID cmd", 0, "ID", roleExec},
		// What follows the ID of exec is the command's.
		{"runc", "exec ID cmd --bundle B -- x", "exec -- ID cmd --bundle B -- x", 0, "ID", roleExec},
		{"crun", "exec ID cmd -p F", "exec -- ID cmd -p F", 0, "ID", roleExec},
		{"youki", "exec ID cmd -p F", "exec -- ID cmd -p F", 0, "ID", roleExec},
		{"youki", "exec ID -t cmd -t", "exec --tty -- ID cmd -t", 0, "ID", roleExec},
		{"runc", "exec -- ID cmd", "exec -- ID cmd", 0, "ID", roleExec},
		// Values that look like options.
		{"runc", "create --bundle --pid-file ID", "create --bundle=--pid-file -- ID", 0, "ID", roleCreate},
		{"crun", "create --bundle --pid-file ID", "create --bundle=--pid-file -- ID", 0, "ID", roleCreate},
		{"youki", "create --bundle --pid-file ID", "", missingValue, "", 0},
		{"crun", "create --bundle -- ID", "create --bundle=-- -- ID", 0, "ID", roleCreate},
		// Twice.
		{"runc", "create --bundle A --bundle B ID", "create --bundle=B -- ID", 0, "ID", roleCreate},
		{"runc", "create --bundle A -b A ID", "", repeated, "", 0},
		{"crun", "create --bundle A -b B ID", "create --bundle=B -- ID", 0, "ID", roleCreate},
		{"youki", "create --bundle A -b A ID", "", repeated, "", 0},
		{"crun", "update --memory 1 --memory 2 ID", "", repeated, "", 0},
		{"crun", "--systemd-cgroup --cgroup-manager=cgroupfs run ID", "--systemd-cgroup --cgroup-manager=cgroupfs run -- ID", 0, "ID", roleRun},
		{"crun", "--cgroup-manager=cgroupfs --systemd-cgroup --cgroup-manager=disabled run ID", "--systemd-cgroup --cgroup-manager=disabled run -- ID", 0, "ID", roleRun},
		// Types.
		{"runc", "create --preserve-fds 0x3 ID", "create --preserve-fds=3 -- ID", 0, "ID", roleCreate},
		{"crun", "create --preserve-fds 0x3 ID", "", badValue, "", 0},
		{"runc", "create --preserve-fds -1 ID", "", badValue, "", 0},
		{"runc", "run --detach=f ID", "run --detach=false -- ID", 0, "ID", roleRun},
		{"runc", "run --detach=maybe ID", "", badValue, "", 0},
		{"crun", "run --detach=true ID", "", unexpectedValue, "", 0},
		{"crun", "--cgroup-manager=none run ID", "", badValue, "", 0},
		{"runc", "--rootless=AUTO list", "--rootless=auto list", 0, "", rolePass},
		{"crun", "run --bundle= ID", "", badValue, "", 0},
		{"runc", "run --bundle= ID", "run --bundle= -- ID", 0, "ID", roleRun},
		// IDs.
		{"runc", "run a/b", "", badID, "", 0},
		{"crun", "run ../x", "", badID, "", 0},
		{"runc", "run ..", "", badID, "", 0},
		{"runc", "run ...", "run -- ...", 0, "...", roleRun},
		{"runc", "run -- -x", "run -- -x", 0, "-x", roleRun},
		{"crun", "run a,b", "", badID, "", 0},
		// Counts.
		{"runc", "run", "", missingArgument, "", 0},
		{"runc", "exec ID", "", missingArgument, "", 0},
		{"crun", "", "", missingArgument, "", 0},
		{"runc", "list x", "", tooManyArguments, "", 0},
		// A pattern is no ID.
		{"crun", "delete -r .*", "delete --regex -- .*", 0, "", roleDelete},
		{"crun", "delete .*", "", badID, "", 0},
		{"crun", "mounts add ID F", "mounts -- add ID F", 0, "ID", roleMounts},
		{"crun 1.8", "mounts add ID F", "", unknownCommand, "", 0},
		// CRIU.
		{"runc", "restore --image-path I --bundle B ID", "restore --image-path=I --bundle=B -- ID", 0, "ID", roleRestore},
		{"crun", "restore --network-lock skip ID", "restore --network-lock skip -- ID", 0, "ID", roleRestore},
		{"crun", "restore --network-lock=skip ID", "", unexpectedValue, "", 0},
		// Commands that do not exist.
		{"runc", "init", "", unknownCommand, "", 0},
		{"runc", "RUN ID", "", unknownCommand, "", 0},
		{"crun", "events ID", "", unknownCommand, "", 0},
		{"youki", "restore ID", "", unknownCommand, "", 0},
		// Palisade's own.
		{"runc", "--root R --palisade-policy strict run ID", "", misplacedOwn, "", 0},
		{"crun", "run --palisade-policy=strict ID", "", misplacedOwn, "", 0},
		// Help and version.
		{"runc", "", "--help", 0, "", rolePass},
		{"runc", "run --help ID", "run --help", 0, "", rolePass},
		{"crun", "run -? --nosuch", "run --help", 0, "", rolePass},
		{"crun", "run -d\xff ID", "run --help", 0, "", rolePass}, // a quirk of argp
		{"crun", "run -d\xfe ID", "", unknownOption, "", 0},
		{"crun", "--debug -V", "--debug --version", 0, "", rolePass},
		{"runc", "-v", "--version", 0, "", rolePass},
		{"youki", "--version", "--version", 0, "", rolePass},
		{"youki", "ps ID -ef", "ps -- ID -ef", 0, "ID", rolePass},
		{"youki", "ps ID --format json", "ps --format=json -- ID", 0, "ID", rolePass},
		{"youki", "kill ID -9", "", unknownOption, "", 0},
		{"youki", "exec --env A ID cmd", "", badValue, "", 0},
	}
	all := grammars()
	for _, tt := range tests {
		c, err := parse(all[tt.grammar], strings.Fields(tt.line))
		var e *syntaxError
		switch {
		case errors.As(err, &e):
			if e.Reason != tt.refused {
				t.Errorf("%s %s: %v (reason %d), want reason %d", tt.grammar, tt.line, err, e.Reason, tt.refused)
			}
			continue
		case err != nil || tt.refused != 0:
			t.Errorf("%s %s: error %v, want reason %d", tt.grammar, tt.line, err, tt.refused)
			continue
		}
		if got := strings.Join(c.argv(), " "); got != tt.want || c.ID != tt.id || c.Role() != tt.role {
			t.Errorf("%s %s: %q, ID %q, role %v; want %q, ID %q, role %v", tt.grammar, tt.line, got, c.ID, c.Role(), tt.want, tt.id, tt.role)
		}
	}
}

// TestLongLine wants a line as long as the kernel lets it be read in no more than
// time that grows with its length: a quadratic reader would take minutes.
func TestLongLine(t *testing.T) {
	words := 100_000
	if testing.Short() {
		words = 1000
	}
	all := grammars()
	for _, name := range []string{"runc", "crun", "youki"} {
		g := all[name]
		line := []string{"exec"}
		for range words {
			line = append(line, "-e", "A=B")
			if g.Syntax != syntaxClap {
				line = append(line, "-d")
			}
		}
		line = append(line, "ID", "cmd")
		c, err := parse(g, line)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n := len(c.argv()); n < words || n > words+10 {
			t.Errorf("%s: %d words were rebuilt", name, n)
		}
	}
}

func TestHelpTopic(t *testing.T) {
	for line, want := range map[string]string{"run --help": "run true", "--help": " true", "help": " true", "help run": "run true", "list": " false"} {
		c, err := parse(runcGrammar(reorderKnownOptions), strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		topic, asked := c.helpTopic()
		if got := fmt.Sprintf("%s %v", topic, asked); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func TestErrorsNameTheWord(t *testing.T) {
	tests := []struct{ grammar, line, want string }{
		{"runc", "run --bundel B ID", `command line of runc run: unknown option "--bundel" (did you mean --bundle?)`},
		{"runc", "creat ID", `command line of runc: unknown command "creat" (did you mean create?)`},
		{"crun 1.8", "exec --pro F ID", `command line of crun exec: option "--pro" is short for more than one (--process --process-label --program-name)`},
		{"crun", "run ID --bundle B", `command line of crun run: argument "--bundle" is one too many (options stand before the container ID)`},
		{"runc", "run a/b", `command line of runc run: container ID "a/b": character '/' at byte 1, want letters, digits and _+-.,`},
		{"runc", "create --preserve-fds x ID", `command line of runc create: option --preserve-fds: value "x", want a number`},
		{"runc", "--log-format xml list", `command line of runc: option --log-format: value "xml", want text, json`},
		{"runc", "create --palisade-policy strict ID", `command line of runc create: unknown option "--palisade-policy" (options of Palisade stand before all others)`},
	}
	all := grammars()
	for _, tt := range tests {
		_, err := parse(all[tt.grammar], strings.Fields(tt.line))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s %s:\n%v, want\n%s", tt.grammar, tt.line, err, tt.want)
		}
	}
	_, err := parse(all["runc"], []string{strings.Repeat("x", 1<<20)})
	if err == nil || len(err.Error()) > 300 {
		t.Errorf("the error of a long word has %d bytes", len(err.Error()))
	}
}

func TestOwn(t *testing.T) {
	own, rest, err := takeOwn([]string{"--palisade-policy=strict", "--palisade-state", "/s", "--root", "/r", "--palisade-x=y"})
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"policy": "strict", "state": "/s"}; !maps.Equal(own, want) {
		t.Errorf("own %v, want %v", own, want)
	}
	if want := []string{"--root", "/r", "--palisade-x=y"}; !slices.Equal(rest, want) {
		t.Errorf("rest %q, want %q", rest, want)
	}
	for _, bad := range [][]string{{"--palisade-policy"}, {"--palisade-policy=a", "--palisade-policy=b"}} {
		if _, _, err := takeOwn(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestSetAndDelete(t *testing.T) {
	c, err := parse(runcGrammar(reorderKnownOptions), strings.Fields("--log L exec -e A=1 -e B=2 --cap X ID cmd"))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{c.Set("preserve-fds", "3"), c.Set("env", "C=3", "D=4"), c.Global.Set("root", "/r"), c.Set("detach", "1")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c.Delete("cap")
	c.Args = append([]string{"/step"}, c.Args...)
	want := "--log=L --root=/r exec --preserve-fds=3 --env=C=3 --env=D=4 --detach=true -- ID /step cmd"
	if got := strings.Join(c.argv(), " "); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if c.Int("preserve-fds") != 3 || !c.Bool("detach") || c.Value("env") != "D=4" || c.Has("cap") || c.Value("cap") != "" {
		t.Errorf("preserve-fds %d, detach %v, env %q", c.Int("preserve-fds"), c.Bool("detach"), c.Value("env"))
	}
	for _, err := range []error{c.Set("nosuch", "1"), c.Set("preserve-fds", "-1"), c.Set("preserve-fds", "1", "2"), c.Set("tty", "x"), c.Set("cwd", "a\x00b")} {
		if err == nil {
			t.Error("a wrong option was set")
		}
	}
	if got := strings.Join(c.argv(), " "); got != want {
		t.Errorf("after errors %q, want %q", got, want)
	}
}

// TestValuesAsTheRuntimeTakesThem has the list of urfave/cli, which loses one empty
// value.
func TestValuesAsTheRuntimeTakesThem(t *testing.T) {
	for line, want := range map[string][]string{
		"exec --env= ID cmd":                   {""},
		"exec --env= --env=A=1 ID cmd":         {"A=1"},
		"exec --env= --env=A=1 --env= ID cmd":  {"A=1", ""},
		"exec --env=A=1 --env=B ID cmd":        {"A=1", "B"},
		"exec ID cmd":                          nil,
		"exec --env= --env= ID cmd":            {""},
		"exec --env=A=1 --env= --env=B ID cmd": {"A=1", "B"},
	} {
		c, err := parse(runcGrammar(reorderKnownOptions), strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Values("env"); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
		if c, err = parse(runcGrammar(reorderDashes), strings.Fields(line)); err != nil {
			t.Fatal(err)
		}
		if got, all := c.Values("env"), strings.Count(line, "--env="); len(got) != all {
			t.Errorf("%s: %q in the older way, want %d values", line, got, all)
		}
	}
}

func TestPaths(t *testing.T) {
	d := dirs{Caller: "/caller", Bundle: "/caller/b", Container: "/old"}
	tests := []struct{ grammar, line, want string }{
		{
			"runc", "--log l --root r create --bundle b --pid-file p --console-socket s --pidfd-socket q ID",
			"--log=/caller/l --root=/caller/r create --bundle=/caller/b --pid-file=/caller/p --console-socket=/caller/b/s --pidfd-socket=/caller/b/q -- ID",
		},
		{
			"crun", "--log l --root r create --bundle b --pid-file p --console-socket s ID",
			"--log=file:/caller/b/l --root=/caller/b/r create --bundle=/caller/b --pid-file=/caller/b/p --console-socket=/caller/b/s -- ID",
		},
		{"crun", "--log l --root r start ID", "--log=file:/caller/l --root=/caller/r start -- ID"},
		{"crun", "--log journald:x start ID", "--log=journald:x start -- ID"},
		{"crun", "--log file:l start ID", "--log=file:/caller/l start -- ID"},
		{"crun", "--log /l start ID", "--log=/l start -- ID"},
		{"crun", "create --config c.json -b b ID", "create --config=/caller/c.json --bundle=/caller/b -- ID"},
		{"crun", "create --config config.json -b b ID", "create --config=/caller/b/config.json --bundle=/caller/b -- ID"},
		{"runc", "exec --process p --console-socket s ID", "exec --process=/caller/p --console-socket=/caller/s -- ID"},
		{"runc", "exec --console-socket s --pid-file p ID cmd", "exec --console-socket=/old/s --pid-file=/caller/p -- ID cmd"},
		{"crun", "exec --console-socket s --pid-file p --cwd w ID cmd", "exec --console-socket=/caller/s --pid-file=/caller/p --cwd=w -- ID cmd"},
		{"runc", "restore --bundle b --image-path i --work-path w ID", "restore --bundle=/caller/b --image-path=/caller/b/i --work-path=/caller/b/w -- ID"},
		{"runc", "restore --bundle b ID", "restore --bundle=/caller/b -- ID"},
		{"crun", "restore --bundle b ID", "restore --bundle=/caller/b --image-path=/caller/b/checkpoint -- ID"},
		{"runc", "checkpoint --image-path i --parent-path ../p ID", "checkpoint --image-path=/caller/i --parent-path=../p -- ID"},
		{"runc", "update --resources - ID", "update --resources=- -- ID"},
		{"runc", "create --pid-file= ID", "create --pid-file= -- ID"},
		{"youki", "create --bundle b --console-socket s --pid-file p ID", "create --bundle=/caller/b --console-socket=s --pid-file=/caller/p -- ID"},
	}
	all := grammars()
	for _, tt := range tests {
		c, err := parse(all[tt.grammar], strings.Fields(tt.line))
		if err != nil {
			t.Errorf("%s %s: %v", tt.grammar, tt.line, err)
			continue
		}
		c.makeAbsolute(d)
		if got := strings.Join(c.argv(), " "); got != tt.want {
			t.Errorf("%s %s:\n%s, want\n%s", tt.grammar, tt.line, got, tt.want)
		}
	}
	c, err := parse(all["crun"], strings.Fields("--log l --log-format json create -b b -f x/c.json ID"))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.bundleDir("/caller"); got != "/caller/b" {
		t.Errorf("bundle %s", got)
	}
	if got := c.ConfigFile(d); got != "/caller/x/c.json" {
		t.Errorf("configuration %s", got)
	}
	if file, asJSON := c.Log(d); file != "/caller/b/l" || !asJSON {
		t.Errorf("log %s, JSON %v", file, asJSON)
	}
	if got := c.Path("console-socket", d); got != "" {
		t.Errorf("console socket %s", got)
	}
	plain, err := parse(all["runc"], strings.Fields("run ID"))
	if err != nil {
		t.Fatal(err)
	}
	if got := plain.bundleDir("/caller"); got != "/caller" {
		t.Errorf("bundle %s", got)
	}
	if got := plain.ConfigFile(dirs{Bundle: "/caller"}); got != "/caller/config.json" {
		t.Errorf("configuration %s", got)
	}
}

func TestCleanEnvironment(t *testing.T) {
	env := []string{"PATH=/bin", "_LIBCONTAINER_INITPIPE=3", "_LIBCONTAINER_", "POSIXLY_CORRECT=", "LISTEN_FDS=1", "XDG_RUNTIME_DIR=/r", "POSIXLY_CORRECTX=1"}
	want := []string{"PATH=/bin", "LISTEN_FDS=1", "XDG_RUNTIME_DIR=/r", "POSIXLY_CORRECTX=1"}
	if got := cleanEnvironment(env); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if env[1] != "_LIBCONTAINER_INITPIPE=3" {
		t.Error("the given environment was changed")
	}
}

// TestTables holds what a table has to be for the parsers.
func TestTables(t *testing.T) {
	for name, g := range grammars() {
		tables := map[string][]option{"": g.Options}
		for _, c := range g.Commands {
			tables[c.Name] = c.Options
			if c.ID >= 0 && (c.Min <= c.ID && c.Name != "help" || c.Max >= 0 && c.Max < c.Min) {
				t.Errorf("%s %s: ID at %d of %d to %d arguments", name, c.Name, c.ID, c.Min, c.Max)
			}
			if c.Help == "" {
				t.Errorf("%s %s has no help", name, c.Name)
			}
			if c.Pattern != "" && !slices.ContainsFunc(c.Options, func(o option) bool { return o.Name == c.Pattern }) {
				t.Errorf("%s %s: no option --%s", name, c.Name, c.Pattern)
			}
		}
		for place, table := range tables {
			names := map[string]bool{}
			for _, o := range table {
				all := append([]string{o.Name}, o.Aliases...)
				for _, r := range o.Short {
					all = append(all, string(r))
				}
				for _, n := range all {
					if names[n] {
						t.Errorf("%s %s: %q is there twice", name, place, n)
					}
					names[n] = true
				}
				if o.Help == "" && o.Refuse == "" {
					t.Errorf("%s %s --%s has no help", name, place, o.Name)
				}
				if o.Type == intValue && o.Max == 0 {
					t.Errorf("%s %s --%s has no upper bound", name, place, o.Name)
				}
			}
		}
	}
}

func TestHelpText(t *testing.T) {
	g := crunGrammar("1.8.1")
	text := g.helpText("palisade-oci", "/usr/bin/crun", "")
	for _, want := range []string{"palisade-oci", "crun (/usr/bin/crun)", "--palisade-policy NAME", "--cgroup-manager=VALUE", "exec ID COMMAND", "restore ID"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for _, not := range []string{"HANG", "program-name", "mounts"} {
		if strings.Contains(text, not) {
			t.Errorf("%q in\n%s", not, text)
		}
	}
	text = g.helpText("palisade-oci", "/usr/bin/crun", "exec")
	for _, want := range []string{"exec [OPTION]... ID COMMAND", "-p, --process=PATH", "-e, --env=VALUE", "(repeatable)"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	got := versionText("palisade-oci", "1.2", "/usr/bin/crun", "crun version 1.8.1\nspec: 1.0.0\n")
	if want := "palisade-oci version 1.2 over /usr/bin/crun\ncrun version 1.8.1\nspec: 1.0.0\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

type memory struct {
	sync.Mutex
	m             map[string]detected
	loads, stores int
}

func (c *memory) Load(key string) (detected, bool) {
	c.Lock()
	defer c.Unlock()
	c.loads++
	d, ok := c.m[key]
	return d, ok
}

func (c *memory) Store(key string, d detected) {
	c.Lock()
	defer c.Unlock()
	c.stores++
	c.m[key] = d
}

func TestDetect(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
		return p
	}
	cache := &memory{m: map[string]detected{}}
	old := script("old", `case $1 in --version) echo "runc version 1.1.15"; exit 0;; esac; echo "Incorrect Usage: flag provided but not defined: -zz"; exit 1`+"\n")
	tests := []struct {
		path             string
		runtime, version string
		how              reordering
	}{
		{old, "runc", "1.1.15", reorderDashes},
		{script("new", `case $1 in --version) echo "runc version 1.5.2"; exit 0;; esac; echo 'new: "list" requires exactly 0 argument(s)' >&2; exit 1`+"\n"), "runc", "1.5.2", reorderKnownOptions},
		{script("odd", `case $1 in --version) echo "runc version 9"; exit 0;; esac; exit 0`+"\n"), "runc", "9", reorderUnknown},
		{script("crun-wrapper", "echo crun version 1.8.1; echo spec: 1.0.0\n"), "crun", "1.8.1", 0},
		{script("y", "echo youki version: 0.5.7\n"), "youki", "0.5.7", 0},
		{script("chatty", "echo crun version 1.20; yes | head -c 100000\n"), "crun", "1.20", 0},
	}
	for _, tt := range tests {
		for range 2 {
			g, d, err := detect(tt.path, cache)
			if err != nil {
				t.Errorf("%s: %v", tt.path, err)
				continue
			}
			if d.Runtime != tt.runtime || d.Version != tt.version || d.Reorder != tt.how || g.Runtime != tt.runtime || g.Version != tt.version || g.Reorder != tt.how {
				t.Errorf("%s: %+v and %s %s %d, want %s %s %d", tt.path, d, g.Runtime, g.Version, g.Reorder, tt.runtime, tt.version, tt.how)
			}
			if len(d.Output) > maxVersion {
				t.Errorf("%s: %d bytes of output were kept", tt.path, len(d.Output))
			}
		}
	}
	if cache.stores != len(tests) {
		t.Errorf("%d entries were stored, want %d", cache.stores, len(tests))
	}
	// Another program in the same place is asked again.
	if err := os.WriteFile(old, []byte("#!/bin/sh\necho crun version 1.29\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if g, _, err := detect(old, cache); err != nil || g.Runtime != "crun" {
		t.Errorf("exchanged runtime: %v, %v", g, err)
	}
	// A damaged entry is not believed.
	for k := range cache.m {
		cache.m[k] = detected{Runtime: "sh"}
	}
	if g, _, err := detect(old, cache); err != nil || g.Runtime != "crun" {
		t.Errorf("damaged entry: %v, %v", g, err)
	}

	data := filepath.Join(dir, "data")
	if err := os.WriteFile(data, []byte("\x00\x01"), 0o755); err != nil {
		t.Fatal(err)
	}
	var unknown *unknownRuntimeError
	for name, path := range map[string]string{
		"kata":     script("kata", "echo kata-runtime version 3.0\n"),
		"silent":   script("silent", "exit 0\n"),
		"fails":    script("fails", "exit 3\n"),
		"no magic": data,
	} {
		if _, _, err := detect(path, nil); !errors.As(err, &unknown) || !strings.Contains(err.Error(), "--palisade-runtime") {
			t.Errorf("%s: %v, want an unknown runtime with a hint", name, err)
		}
	}
	for _, path := range []string{filepath.Join(dir, "nosuch"), dir, "runc"} {
		if _, _, err := detect(path, nil); err == nil {
			t.Errorf("%s was detected", path)
		}
	}
}

// TestRebuiltIsFixed wants what was rebuilt to be read as the same again, for random
// lines of each grammar.
func TestRebuiltIsFixed(t *testing.T) {
	for name, g := range grammars() {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				w := &writer{newRand(rapid.Uint64().Draw(t, "seed")), g}
				checkLine(t, g, w.line())
			})
		})
	}
}

type failer interface {
	Fatalf(format string, args ...any)
	Helper()
}

// checkLine holds what is true of each command line.
func checkLine(t failer, g *grammar, line []string) {
	t.Helper()
	before := slices.Clone(line)
	c, err := parse(g, line)
	if !slices.Equal(before, line) {
		t.Fatalf("%q was changed to %q", before, line)
	}
	if err != nil {
		var e *syntaxError
		if c != nil || !errors.As(err, &e) || e.Reason == 0 || e.Detail == "" {
			t.Fatalf("%q: %v, %+v", line, err, c)
		}
		return
	}
	argv := c.argv()
	again, err := parse(g, argv)
	if err != nil {
		t.Fatalf("%q was rebuilt as %q, which is refused: %v", line, argv, err)
	}
	if !slices.Equal(again.argv(), argv) {
		t.Fatalf("%q was rebuilt as %q, then as %q", line, argv, again.argv())
	}
	if c.Command != again.Command || c.ID != again.ID || c.Pattern != again.Pattern || c.Verb != again.Verb || c.Help != again.Help || c.Version != again.Version || !slices.Equal(c.Args, again.Args) {
		t.Fatalf("%q: %+v, then %+v", line, c, again)
	}
	if !slices.Equal(c.set, again.set) || !slices.Equal(c.Global.set, again.Global.set) {
		t.Fatalf("%q: options %v and %v, then %v and %v", line, c.Global.set, c.set, again.Global.set, again.set)
	}
	if c.command != nil && c.command.ID >= 0 && !c.Help && !c.Version {
		if (c.ID == "") == (c.Pattern == "") {
			t.Fatalf("%q: ID %q and pattern %q", line, c.ID, c.Pattern)
		}
		if c.ID != "" && (strings.ContainsAny(c.ID, "/\x00") || c.ID == "." || c.ID == "..") {
			t.Fatalf("%q: ID %q", line, c.ID)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, line := range smallest {
		f.Add(strings.Join(line, "\x00"))
	}
	for _, s := range strange {
		f.Add("exec\x00--env\x00" + s + "\x00ID\x00" + s)
	}
	all := grammars()
	names := slices.Sorted(maps.Keys(all))
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<12 {
			return
		}
		for _, name := range names {
			checkLine(t, all[name], strings.Split(text, "\x00"))
		}
	})
}
