// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// lines is how many command lines a comparison takes: CMDLINE_LINES, or few.
func lines(tb testing.TB) int {
	if v := os.Getenv("CMDLINE_LINES"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			tb.Fatalf("CMDLINE_LINES: %v", err)
		}
		return n
	}
	if testing.Short() {
		return 300
	}
	return 2000
}

// seed begins the random lines: CMDLINE_SEED, or always the same.
func seed(tb testing.TB) uint64 {
	v := os.Getenv("CMDLINE_SEED")
	if v == "" {
		return 1
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		tb.Fatalf("CMDLINE_SEED: %v", err)
	}
	return n
}

// writer makes random command lines from a grammar.
type writer struct {
	*rand.Rand
	g *grammar
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 12)) }

func oneOf[T any](w *writer, from []T) T { return from[w.IntN(len(from))] }

func (w *writer) chance(percent int) bool { return w.IntN(100) < percent }

var (
	strange = []string{
		"", "=", "a=b", "=x", "-x", "--", "-", "--bundle", "-b", "--root=/x", "é", "\xff\xfe", "a b", "a\nb", "'", "\\", "--=",
		"-=", "---x", "0", "-1", "0x10", "010", "1_000", "99999999999999999999", "true", "false", "F", "yes", "json", "text",
		"create", "id", strings.Repeat("x", 300), "../..", ".", "/", "file:x", "--help", "-h", "-v", "+3", " 3", "3 ", "1e3",
	}
	plain = []string{"/b", "b", "/run/x/y", "a/b", "./f", "json", "text", "table", "auto", "true", "false", "0", "1", "3", "5s", "100ms", "A=B", "CAP_SYS_ADMIN", "0:0", "soft", "cgroupfs", "systemd"}
	ids   = []string{"c1", "web-1", "a.b", "_x", "0123456789abcdef", "x+y"}
	odd   = []string{"", "-", "-x", "--", ".", "..", "...", "a/b", "a,b", "é", "a b", strings.Repeat("i", 256), strings.Repeat("i", 255), "-9", "=", ".x"}
	tails = []string{"ls", "-l", "--", "--bundle", "-b", "sh", "-c", "echo hi", "", "A=B", "KILL", "9", "-9", "--force", "--process=/p", "-t"}
)

func (w *writer) value(o *option) string {
	switch {
	case w.chance(8):
		return oneOf(w, strange)
	case len(o.Enum) > 0 && w.chance(90):
		return oneOf(w, o.Enum)
	case o.Type == intValue && w.chance(90):
		return strconv.Itoa(w.IntN(20))
	case o.Type == durationValue && w.chance(90):
		return oneOf(w, []string{"5s", "1m", "100ms", "0", "-1s"})
	case o.Type == boolValue || o.Type == optionalBool:
		return oneOf(w, []string{"true", "false", "1", "0", "t", "F", "no", "TRUE", "x"})
	}
	return oneOf(w, plain)
}

// option is one option in one of the ways to write it.
func (w *writer) option(o *option) []string {
	takes := o.Type != boolValue && o.Type != optionalBool
	name := o.Name
	if len(o.Aliases) > 0 && w.chance(30) {
		name = oneOf(w, o.Aliases)
	}
	if len(name) > 1 && (w.chance(3) || w.g.Syntax == syntaxArgp && w.chance(25)) {
		name = name[:1+w.IntN(len(name)-1)] // short for it
	}
	dash := "--"
	if w.chance(10) {
		dash = "-"
	}
	if o.Short != "" && w.chance(40) {
		letter := "-" + string(o.Short[w.IntN(len(o.Short))])
		switch {
		case takes && (w.g.Syntax != syntaxGoFlag || w.chance(5)) && w.chance(40):
			return []string{letter + w.value(o)}
		case takes && w.chance(30):
			return []string{letter + "=" + w.value(o)}
		case takes:
			return []string{letter, w.value(o)}
		case w.chance(4):
			return []string{letter + w.value(o)}
		case w.chance(4):
			return []string{letter + "=" + w.value(o)}
		}
		return []string{letter}
	}
	switch {
	case takes && w.chance(50):
		return []string{dash + name + "=" + w.value(o)}
	case takes && w.chance(95):
		return []string{dash + name, w.value(o)}
	case !takes && (w.g.Syntax == syntaxGoFlag && w.chance(30) || w.chance(4)):
		return []string{dash + name + "=" + w.value(o)}
	}
	return []string{dash + name}
}

func (w *writer) options(table []option, most int) (out [][]string) {
	for range w.IntN(most + 1) {
		if len(table) == 0 {
			break
		}
		o := &table[w.IntN(len(table))]
		switch o.Name {
		case "HANG":
			continue // it costs a second
		case "help", "usage", "version", "program-name":
			if w.chance(70) {
				continue // the rest of the line is not looked at
			}
		}
		out = append(out, w.option(o))
	}
	if len(out) > 1 && w.chance(15) {
		out = append(out, out[w.IntN(len(out))]) // twice
	}
	return out
}

// joined puts one-letter options of a command into one word.
func (w *writer) joined(table []option) string {
	word := "-"
	for range 1 + w.IntN(4) {
		if o := table[w.IntN(len(table))]; o.Short != "" {
			word += o.Short[:1]
		}
	}
	if w.chance(30) {
		word += oneOf(w, plain)
	}
	return word
}

func (w *writer) id() string {
	if w.chance(8) {
		return oneOf(w, odd)
	}
	return oneOf(w, ids)
}

// line is a whole command line.
func (w *writer) line() []string {
	var out []string
	for _, o := range w.options(w.g.Options, 2) {
		out = append(out, o...)
	}
	if w.chance(2) {
		out = append(out, "--")
	}
	// The ways into a container more often than the others.
	cmd := &w.g.Commands[w.IntN(len(w.g.Commands))]
	if w.chance(60) {
		for {
			if cmd = &w.g.Commands[w.IntN(len(w.g.Commands))]; slices.Contains([]role{roleCreate, roleRun, roleExec, roleRestore}, cmd.Role) {
				break
			}
		}
	}
	out = append(out, cmd.Name)
	body := w.options(cmd.Options, 4)
	if w.chance(10) && len(cmd.Options) > 0 {
		body = append(body, []string{w.joined(cmd.Options)})
	}
	if w.chance(12) {
		body = append(body, []string{"--"})
	}
	var args [][]string
	if cmd.ID >= 0 || w.chance(5) {
		if cmd.ID > 0 {
			args = append(args, []string{oneOf(w, []string{"add", "remove"})})
		}
		if w.chance(97) {
			args = append(args, []string{w.id()})
		}
	}
	more := 0
	if cmd.Max < 0 || cmd.Max > cmd.ID+1 {
		more = w.IntN(4)
	} else if w.chance(4) {
		more = 1
	}
	if cmd.Role == roleExec && w.chance(80) {
		more++
	}
	for range more {
		args = append(args, []string{oneOf(w, tails)})
	}
	// Options stand in front, but for some.
	all := slices.Concat(body, args)
	if w.chance(15) {
		w.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	} else if w.chance(10) {
		all = slices.Concat(args, body)
	}
	for _, words := range all {
		out = append(out, words...)
	}
	for w.chance(15) {
		out = w.mutate(out)
	}
	return out
}

// mutate changes one word.
func (w *writer) mutate(line []string) []string {
	if len(line) == 0 {
		return []string{oneOf(w, strange)}
	}
	line = slices.Clone(line)
	i := w.IntN(len(line))
	switch w.IntN(8) {
	case 0:
		return slices.Delete(line, i, i+1)
	case 1:
		return slices.Insert(line, i, oneOf(w, strange))
	case 2:
		return slices.Insert(line, i, line[w.IntN(len(line))])
	case 3:
		line[i] = oneOf(w, strange)
	case 4:
		j := w.IntN(len(line))
		line[i], line[j] = line[j], line[i]
	case 5:
		if n := len(line[i]); n > 0 {
			at := w.IntN(n)
			line[i] = line[i][:at] + line[i][at+1:]
		}
	case 6:
		at := w.IntN(len(line[i]) + 1)
		line[i] = line[i][:at] + oneOf(w, []string{"-", "=", "x", "b", "é", " "}) + line[i][at:]
	case 7:
		at := w.IntN(len(line[i]) + 1)
		head, tail := line[i][:at], line[i][at:]
		line[i] = head
		return slices.Insert(line, i+1, tail)
	}
	return line
}

// stricter are refusals of lines that the runtime's own parser takes, by reason and
// place, each with its reason.
var stricter = map[string]string{
	"runc: bad value of exec --preserve-fds":              "runc takes a negative number for none",
	"runc: bad value of create --preserve-fds":            "runc takes a negative number for none",
	"runc: bad value of run --preserve-fds":               "runc takes a negative number for none",
	"runc: bad value of exec --additional-gids":           "runc refuses a negative group later, and cuts one of more than 32 bits",
	"runc: bad value of --log-format":                     "runc refuses it, unless it only prints its help or version",
	"runc: bad value of --rootless":                       "runc refuses it later",
	"runc: bad value of events --interval":                "runc refuses it later",
	"runc: bad value of ps --format":                      "runc refuses it later",
	"runc: bad value of list --format":                    "runc refuses it later",
	"runc: bad value of restore --manage-cgroups-mode":    "runc refuses it later",
	"runc: bad value of checkpoint --manage-cgroups-mode": "runc refuses it later",
	"runc: bad value of checkpoint --status-fd":           "a descriptor below -1 or beyond the kernel's limit",
	"runc: bad value of update --blkio-weight":            "runc cuts it to 16 bits; the kernel takes 10 to 1000",
	"runc: bad value of update --pids-limit":              "beyond 32 bits below zero",
	"runc: command of exec is missing":                    "runc refuses it later",
	"crun: bad value of --log-format":                     "crun refuses it later",
	"crun: bad value of exec --preserve-fds":              "crun up to 1.29 takes what is no number for 0",
	"crun: bad value of create --preserve-fds":            "crun up to 1.29 takes what is no number for 0",
	"crun: bad value of run --preserve-fds":               "crun up to 1.29 takes what is no number for 0",
	"crun: bad value of create --bundle":                  "crun refuses an empty path later",
	"crun: bad value of run --bundle":                     "crun refuses an empty path later",
	"crun: bad value of spec --bundle":                    "crun refuses an empty path later",
	"crun: bad value of create --config":                  "crun refuses an empty path later",
	"crun: bad value of run --config":                     "crun refuses an empty path later",
	"crun: bad value of exec --process":                   "crun refuses an empty path later",
	"crun: option --program-name is refused":              "it only changes messages",
	"crun: option --HANG is refused":                      "it is for a debugger",
	"crun: option of update is repeated":                  "crun makes two keys of one JSON object",
	"runc: bad container ID":                              "runc refuses it later, or makes no folder of that length",
	"crun: bad container ID":                              "crun since 1.28 refuses it; before it is a path or a name that no engine gives",
}

// place names a refusal as the table above does.
func place(g *grammar, e *syntaxError) string {
	cmd := e.Command
	if cmd != "" {
		cmd += " "
	}
	option := ""
	if i := strings.Index(e.Detail, "--"); i >= 0 {
		option, _, _ = strings.Cut(e.Detail[i:], ":")
	}
	switch e.Reason {
	case badValue:
		return fmt.Sprintf("%s: bad value of %s%s", g.Runtime, cmd, option)
	case badID:
		return g.Runtime + ": bad container ID"
	case refused:
		return fmt.Sprintf("%s: option %s is refused", g.Runtime, option)
	case repeated:
		return fmt.Sprintf("%s: option of %sis repeated", g.Runtime, cmd)
	case missingArgument:
		if strings.Contains(e.Detail, "the command is missing") && e.Command != "" {
			return fmt.Sprintf("%s: command of %sis missing", g.Runtime, cmd)
		}
	}
	return ""
}

// tally counts what became of the lines.
type tally map[string]int

func (n tally) print(tb testing.TB, title string, lines int) {
	tb.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d command lines\n", title, lines)
	for _, k := range slices.Sorted(maps.Keys(n)) {
		fmt.Fprintf(&b, "%8d  %s\n", n[k], k)
	}
	tb.Log(b.String())
}

// confirm compares one line with what the runtime took, and the rebuilt line too.
func confirm(tb testing.TB, g *grammar, p *peer, line []string, n tally) {
	tb.Helper()
	theirs := p.ask(tb, line)
	ours, err := parse(g, line)
	if err != nil {
		var e *syntaxError
		if !errors.As(err, &e) {
			tb.Fatalf("%q: %v is no *SyntaxError", line, err)
		}
		switch {
		case theirs.kind == "error":
			n["refused by both"]++
		case g.Reorder == reorderUnknown && g.Syntax == syntaxGoFlag && e.Reason == ambiguousOrder:
			n["refused: two builds of runc read it in different ways"]++
		case stricter[place(g, e)] != "":
			n["refused here, taken by the parser there: "+place(g, e)]++
		default:
			tb.Errorf("%q: refused (%v); %s %s took it as %+v", line, err, g.Runtime, p.version, theirs)
			n["DIFFERENT"]++
		}
		return
	}
	argv := ours.argv()
	again, err := parse(g, argv)
	if err != nil || !slices.Equal(again.argv(), argv) {
		tb.Errorf("%q: rebuilt %q is not read again: %v", line, argv, err)
		n["DIFFERENT"]++
		return
	}
	rebuilt := p.ask(tb, argv)
	if theirs.kind == "error" {
		switch {
		case rebuilt.kind == "error":
			n["taken here, refused there, rebuilt too"+why(g, p, ours)]++
		case g.Syntax == syntaxGoFlag && g.Reorder == reorderUnknown:
			n["taken here, refused there, rebuilt taken: another build of runc takes it"]++
		default:
			tb.Errorf("%q: taken; %s refused it (%s), and takes %q", line, g.Runtime, theirs.err, argv)
			n["DIFFERENT"]++
		}
		return
	}
	want := expect(g, ours)
	if d := want.differs(g, theirs); d != "" {
		tb.Errorf("%q: %s\nhere  %+v\nthere %+v", line, d, want, theirs)
		n["DIFFERENT"]++
		return
	}
	if d := want.differs(g, rebuilt); d != "" || want.kind == "action" && g.Syntax == syntaxArgp && sequence(rebuilt) != sequence(theirs) {
		tb.Errorf("%q: rebuilt as %q: %s\nfirst %+v\nthen  %+v", line, argv, d, theirs, rebuilt)
		n["DIFFERENT"]++
		return
	}
	n["the same: "+want.kind]++
}

// why says what the version of the runtime does not have.
func why(g *grammar, p *peer, c *commandLine) string {
	gone := func(since, until string) bool {
		return since != "" && older(p.version, since) || until != "" && !older(p.version, until)
	}
	if cmd := g.Command(c.Command); cmd != nil && gone(cmd.Since, "") {
		return ": command of another version"
	}
	for _, o := range [][]setting{c.Global.set, c.options.set} {
		if slices.ContainsFunc(o, func(s setting) bool { return gone(s.opt.Since, s.opt.Until) }) {
			return ": option of another version"
		}
	}
	switch {
	case g.Runtime == "crun" && (c.Command == "restore" || c.Command == "checkpoint"):
		return ": built without CRIU"
	case g.Runtime == "runc" && c.Global.Has("root"):
		return ": the state root is /"
	case c.Command == "help":
		return ": no such help topic"
	}
	return ""
}

// expect is the verdict that the runtime should give.
func expect(g *grammar, c *commandLine) verdict {
	v := verdict{kind: "action", command: c.Command, args: c.positionals()}
	switch {
	case c.Help || c.Command == "help" && g.Syntax == syntaxGoFlag:
		return verdict{kind: "help"}
	case c.Version:
		return verdict{kind: "version"}
	}
	for _, side := range []struct {
		from *options
		to   *[]tookOption
	}{{&c.Global, &v.global}, {&c.options, &v.options}} {
		for _, name := range side.from.Names() {
			*side.to = append(*side.to, tookOption{name, side.from.Values(name)})
		}
	}
	return v
}

// differs says what another verdict has different.
func (v verdict) differs(g *grammar, w verdict) string {
	switch {
	case v.kind != w.kind:
		return fmt.Sprintf("%s here, %s there", v.kind, w.kind)
	case v.kind != "action":
		return ""
	case v.command != w.command:
		return fmt.Sprintf("command %q here, %q there", v.command, w.command)
	case !slices.Equal(v.args, w.args):
		return fmt.Sprintf("arguments %q here, %q there", v.args, w.args)
	}
	cmd := g.Command(v.command)
	if d := differ("option before the command", g, g.Options, v.global, w.global); d != "" {
		return d
	}
	return differ("option", g, cmd.Options, v.options, w.options)
}

func differ(what string, g *grammar, table []option, ours, theirs []tookOption) string {
	a, b := folded(table, ours), folded(table, theirs)
	if g.Runtime == "runc" {
		if r, ok := a["root"]; ok && !sameRoot(r[0], b["root"]) {
			return fmt.Sprintf("root %q here, %q there", r, b["root"])
		}
		delete(a, "root")
		delete(b, "root")
		// urfave/cli since 1.22.2 copies the one value of a list of numbers to the other
		// name of the option, which is the same list.
		if one, two := a["additional-gids"], b["additional-gids"]; len(one) == 1 && slices.Equal(two, []string{one[0], one[0]}) {
			a["additional-gids"] = two
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if !slices.Equal(a[name], b[name]) {
			return fmt.Sprintf("%s --%s is %q here, %q there", what, name, a[name], b[name])
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			return fmt.Sprintf("%s --%s is not given here, %q there", what, name, b[name])
		}
	}
	return ""
}

// sameRoot compares the state root: runc makes it absolute, and some versions keep
// an empty one and count the default as given.
func sameRoot(ours string, theirs []string) bool {
	switch {
	case len(theirs) != 1:
		return false
	case ours == theirs[0]:
		return true
	case filepath.IsAbs(ours):
		return filepath.Clean(ours) == theirs[0]
	}
	// The runtime runs in a folder of the test.
	below := strings.TrimLeft(filepath.Clean("/"+ours), "/")
	return filepath.IsAbs(theirs[0]) && strings.HasSuffix(theirs[0], below)
}

// folded are the values of each option: all of one that is repeated, else the last.
func folded(table []option, from []tookOption) map[string][]string {
	out := map[string][]string{}
	for _, g := range from {
		i := slices.IndexFunc(table, func(o option) bool { return o.Name == g.name })
		values := g.values
		if i >= 0 {
			values = nil
			for _, v := range g.values {
				if canonical, why := table[i].check(v); why == "" {
					v = canonical
				}
				values = append(values, v)
			}
		}
		if i >= 0 && table[i].Repeat {
			out[g.name] = append(out[g.name], values...)
		} else {
			out[g.name] = values
		}
	}
	return out
}

// sequence is the order in which options took hold.
func sequence(v verdict) string {
	last := func(from []tookOption) string {
		var out []string
		for i, g := range from {
			if !slices.ContainsFunc(from[i+1:], func(h tookOption) bool { return h.name == g.name }) {
				out = append(out, g.name)
			}
		}
		return strings.Join(out, " ")
	}
	return last(v.global) + " / " + last(v.options)
}

func confirmLines(t *testing.T, title string, g *grammar, p *peer, fixed [][]string) {
	n, total := tally{}, lines(t)
	for _, line := range fixed {
		confirm(t, g, p, line, n)
	}
	w := &writer{newRand(seed(t)), g}
	for range total {
		line := w.line()
		if slices.ContainsFunc(line, func(s string) bool { return strings.ContainsRune(s, 0) }) {
			continue
		}
		confirm(t, g, p, line, n)
		if n["DIFFERENT"] > 20 {
			t.Fatal("too many are different")
		}
	}
	n.print(t, title, total+len(fixed))
	if same := n["the same: action"]; same*5 < total {
		t.Errorf("%d of %d lines were taken by both, want a fifth at least: the lines test too little", same, total)
	}
}

// smallest are the inputs that a guess of the command line got wrong.
var smallest = [][]string{
	{"run", "ID", "--bundle", "B"},
	{"run", "ID", "--bundle=B"},
	{"run", "--detach", "ID", "--bundle", "B"},
	{"run", "--bund=B", "ID"},
	{"run", "-bB", "ID"},
	{"run", "-b=B", "ID"},
	{"create", "--bundle", "B", "--bundle=C", "ID"},
	{"create", "--bundle", "B", "-b", "C", "ID"},
	{"exec", "-pFILE", "ID"},
	{"exec", "-p", "FILE", "ID"},
	{"exec", "-cCAP_SYS_ADMIN", "ID", "cmd"},
	{"exec", "--use", "0", "ID", "cmd"},
	{"exec", "--process-label", "X", "ID", "cmd"},
	{"exec", "-td", "ID", "cmd"},
	{"exec", "ID", "cmd", "--bundle", "B"},
	{"exec", "--", "ID", "cmd", "--", "x"},
	{"-r", "DIR", "create", "ID"},
	{"--network", "host", "run", "ID"},
	{"--root", "create", "run", "ID"},
	{"--", "run", "ID"},
	{"kill", "ID", "-9"},
	{"kill", "--", "ID", "-9"},
	{"kill", "ID", "9", "--all"},
	{"start", "--", "-x"},
	{"delete", "--force=false", "ID"},
	{"create", "--preserve-fds", "0x3", "ID"},
	{"--systemd-cgroup", "--cgroup-manager=cgroupfs", "run", "ID"},
	{"--cgroup-manager=cgroupfs", "--systemd-cgroup", "run", "ID"},
	{"run", "--help"},
	{"run", "--help", "--nosuch"},
	{"run", "-d\xff", "ID"},
	{"run", "-\xff", "ID"},
	{"run", "-d\xfe", "ID"},
	{"run", "--nosuch", "--help"},
	{"--help"},
	{"--version"},
	{"-v"},
	{"-V"},
	{"-h"},
	{"-?"},
	{"--usage"},
	{"help"},
	{"help", "run"},
	{},
	{"list"},
	{"list", "--quiet"},
	{"features"},
	{"spec", "--bundle", "B"},
	{"restore", "--image-path", "I", "-b", "B", "ID"},
	{"init"},
}

func TestConfirmRuncCommandLine(t *testing.T) {
	for _, v := range []struct {
		version string
		how     reordering
	}{{"v1.5.2", reorderKnownOptions}, {"v1.1.15", reorderDashes}} {
		t.Run(v.version, func(t *testing.T) {
			p := runcPeer(t, v.version)
			confirmLines(t, "runc "+v.version, runcGrammar(v.how).at(p.version), p, smallest)
		})
		t.Run(v.version+" of an unknown build", func(t *testing.T) {
			p := runcPeer(t, v.version)
			confirmLines(t, "runc "+v.version+" of an unknown build", runcGrammar(reorderUnknown), p, smallest)
		})
	}
}

// TestConfirmRuncTable compares the table with the options of runc's own, by
// version: CMDLINE_RUNC names further ones.
func TestConfirmRuncTable(t *testing.T) {
	types := map[string]string{
		"BoolFlag": "bool", "StringFlag": "text", "IntFlag": "int", "DurationFlag": "duration",
		"StringSliceFlag": "texts", "Int64SliceFlag": "ints",
	}
	for _, version := range append([]string{"v1.5.2", "v1.1.15"}, strings.Fields(os.Getenv("CMDLINE_RUNC"))...) {
		t.Run(version, func(t *testing.T) {
			p := runcPeer(t, version)
			_, table := p.send(t, "T", []string{"list"})
			theirs := map[string][]string{}
			for command, rows := range table {
				if command == "help" || command == "init" {
					continue // init of 1.0 is for runc itself, which starts it by another path
				}
				theirs[command] = []string{}
				for _, row := range rows {
					w := strings.Split(row, " ") // names, type, variables of the environment
					names := strings.Split(w[0], ",")
					slices.Sort(names)
					if w[2] != "" {
						t.Errorf("%s %s takes its value from %s", command, w[0], w[2])
					}
					if names[0] != "h" {
						theirs[command] = append(theirs[command], strings.Join(names, ",")+" "+types[w[1]])
					}
				}
				slices.Sort(theirs[command])
			}
			ours := map[string][]string{}
			g := runcGrammar(reorderKnownOptions).at(p.version)
			ours[""] = rows(g.Options)
			for _, c := range g.Commands {
				if c.Name != "help" {
					ours[c.Name] = rows(c.Options)
				}
			}
			if d := cmp.Diff(theirs, ours); d != "" {
				t.Errorf("table of runc %s (-runc +here):\n%s", version, d)
			}
		})
	}
}

func rows(table []option) []string {
	out := []string{}
	for _, o := range table {
		if o.Name == "help" {
			continue
		}
		names := []string{o.Name}
		for _, r := range o.Short {
			names = append(names, string(r))
		}
		slices.Sort(names)
		kind := map[valueType]string{boolValue: "bool", stringValue: "text", intValue: "int", durationValue: "duration"}[o.Type]
		if o.Repeat {
			kind += "s"
		}
		out = append(out, strings.Join(names, ",")+" "+kind)
	}
	slices.Sort(out)
	return out
}

// TestConfirmCrunTable compares the table with the options of the installed crun.
func TestConfirmCrunTable(t *testing.T) {
	p := crunPeer(t)
	g := crunGrammar(p.version)
	for _, c := range append([]command{{Options: g.Options}}, g.Commands...) {
		line := []string{c.Name, "id", "id"}
		if c.Name == "" {
			line = []string{"list"}
		}
		v, table := p.send(t, "T", line)
		if c.Name != "" && v.command != c.Name {
			if c.Name != "checkpoint" && c.Name != "restore" {
				t.Errorf("crun %s has no command %s", p.version, c.Name)
			}
			continue // built without CRIU
		}
		theirs, ours := map[string]string{}, map[string]string{}
		for _, row := range table[c.Name] {
			w := strings.Split(row, " ") // key, flags, argument, name
			if w[3] == "-" {
				continue
			}
			kind := "text"
			switch {
			case w[2] == "-":
				kind = "bool"
			case w[1] == "1": // OPTION_ARG_OPTIONAL
				kind = "optional"
			}
			key, err := strconv.Atoi(w[0])
			if err != nil {
				t.Fatal(err)
			}
			if key < 128 {
				kind += " " + string(rune(key))
			}
			theirs[w[3]] = kind
		}
		for _, o := range c.Options {
			if slices.ContainsFunc(argpOwn(), func(own option) bool { return own.Name == o.Name }) {
				continue
			}
			kind := map[valueType]string{boolValue: "bool", optionalBool: "optional"}[o.Type]
			if kind == "" {
				kind = "text"
			}
			if o.Short != "" {
				kind += " " + o.Short[:1]
			}
			for _, n := range append([]string{o.Name}, o.Aliases...) {
				ours[n] = kind
			}
		}
		if d := cmp.Diff(theirs, ours); d != "" {
			t.Errorf("options of crun %s %s (-crun +here):\n%s", p.version, c.Name, d)
		}
	}
}

func TestConfirmCrunCommandLine(t *testing.T) {
	p := crunPeer(t)
	confirmLines(t, "crun "+p.version, crunGrammar(p.version), p, smallest)
}
