// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// Outcomes of a cell.
const (
	outReached = "reached"
	outRefused = "refused" // by Palisade
	outRan     = "no effect"
	outFailed  = "failed" // the runtime said no
)

// A cell is what came of one row in one configuration.
type cell struct {
	outcome string
	detail  string
	way     string
	// of so many attempts, for races.
	hits, refusals, rounds int
}

func (c cell) String() string {
	s := c.outcome
	if c.rounds > 1 {
		s += fmt.Sprintf(" %d of %d", c.hits, c.rounds)
		if c.refusals > 0 {
			s += fmt.Sprintf(" (%d refused)", c.refusals)
		}
	}
	if c.way != "" {
		s += " (" + c.way + ")"
	}
	if c.detail != "" {
		s += ": " + c.detail
	}
	return s
}

var refusal = regexp.MustCompile(`palisade(?:-oci|-init|: error): [^\n]*`)

// reasons are what refusals of these rows are about. Any other would say that
// the row is refused for something that it is not about.
var reasons = regexp.MustCompile(`mounts?\[|mounts: asked for|root|link|not allowed by policy|read OCI configuration|executed first|working (directory|folder)|cwd|mount|hook|/dev/|exec:? .*: no such file`)

var chatter = regexp.MustCompile(`time="[^"]*" |level=\w+ |msg=|(runc|crun) \w+ failed: |unable to start container process: |error during container init: |container_linux.go:\d+: |process_linux.go:\d+: |rootfs_linux.go:\d+: |standard_init_linux.go:\d+: |starting container process caused: |container init caused: |killed: the container is less confined than asked: `)

// short is a message for a cell of a table, without what differs from run to run.
func short(s string) string {
	s = regexp.MustCompile(`/[^ :,]*palisade-escapes[^ :,"]*`).ReplaceAllString(s, "…")
	s = regexp.MustCompile(`esc\d+-\d+`).ReplaceAllString(s, "ID")
	s = chatter.ReplaceAllString(s, "")
	s = strings.ReplaceAll(s, `\"`, `"`)
	s = strings.Trim(strings.ReplaceAll(s, "|", "/"), "\" \t")
	if len(s) > 110 {
		s = s[:110] + "…"
	}
	return s
}

// judge is the outcome of one attempt.
func (r *row) judge(a *attempt, res result) cell {
	detail, ok := r.reached(a, res)
	switch m := refusal.FindString(res.out); {
	case ok:
		return cell{outcome: outReached, detail: detail}
	case m != "" && a.pol != bare:
		if strings.Contains(m, "more than") || !reasons.MatchString(m) {
			a.t.Errorf("%s, %s, %s: refused for another reason: %s", r.id, a.pol, a.way, m)
		}
		return cell{outcome: outRefused, detail: short(regexp.MustCompile(`^palisade(-oci|: error): `).ReplaceAllString(m, ""))}
	case strings.Contains(res.out, "ran ") && detail != "":
		return cell{outcome: outRan, detail: detail}
	case strings.Contains(res.out, "ran "):
		return cell{outcome: outRan, detail: lastLine(res.out)}
	default:
		return cell{outcome: outFailed, detail: short(res.call + ": " + lastLine(res.out))}
	}
}

// lastLine is what a runtime said last.
func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return short(lines[len(lines)-1])
}

// try is a cell: every variant, or every round, until the effect is there.
func (r *row) try(t *testing.T, s *scratch, rt runtime, pol, way string) cell {
	t.Helper()
	variants, rounds := max(r.variants, 1), 1
	if r.rounds > 0 {
		if rounds = r.rounds; all() {
			rounds = r.long
		}
	}
	var last cell
	hits, refusals, done := 0, 0, 0
	for range rounds {
		for n := range variants {
			a := s.attempt(t, rt, pol, way, n)
			r.setup(a)
			c := r.judge(a, a.do())
			removeAll(t, a.dir)
			if os.Getenv("PALISADE_ESCAPES_VERBOSE") != "" {
				t.Logf("%s, %s, %s, %s, %d: %v", r.id, rt.name, pol, way, n, c)
			}
			// What Palisade says is told rather than what a runtime says.
			if last.outcome == "" || c.outcome == outReached || c.outcome == outRefused || last.outcome != outRefused && c.outcome == outRan {
				last = c
			}
			if c.outcome == outRefused {
				refusals++
			}
			if c.outcome == outReached {
				hits++
				break
			}
			// Three variants that are refused alike say it for a short run.
			if refusals >= 3 && r.rounds == 0 && !all() {
				break
			}
		}
		done++
		// One success says it for the runtime alone and, on Palisade's side, is a
		// failure already.
		if hits > 0 && !(all() && r.rounds > 0 && pol == bare && done < 40) {
			break
		}
	}
	if r.rounds > 0 {
		last.hits, last.refusals, last.rounds = hits, refusals, done
	}
	if hits > 0 {
		last.outcome = outReached
	}
	last.way = way
	return last
}

// a line of the printed table.
type printed struct{ id, fixed, runtime, what, bare, def, strict, layer string }

func table(rows []printed) string {
	var b strings.Builder
	b.WriteString("| row | fixed in | runtime | what | bare | default | strict | layer |\n|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", r.id, r.fixed, r.runtime, r.what, r.bare, r.def, r.strict, r.layer)
	}
	return b.String()
}

// short runs build these two: between them most rows can be seen.
var shortVersions = []string{"1.0.0-rc93", "1.1.4"}

func (r *row) runtimes() []string {
	if all() {
		return r.on
	}
	if one() {
		return r.on[:1]
	}
	for _, v := range r.on {
		if v == "crun" || slices.Contains(shortVersions, v) {
			return []string{v}
		}
	}
	return nil
}

func (s *scratch) named(t testing.TB, name string) runtime {
	t.Helper()
	if name == "crun" {
		return s.crun(t)
	}
	return s.runc(t, name)
}

// TestConfirmEscapes runs every row on the runtimes that it is about: alone and
// under Palisade, by every way in. What the runtime alone does is wanted as the
// row says it; under Palisade nothing may be reached.
func TestConfirmEscapes(t *testing.T) {
	s := newScratch(t)
	for _, part := range []struct {
		name string
		rows []row
	}{{"public", rowsRuntime}, {"relatives", rowsRelatives}} {
		var lines []printed
		t.Run(part.name, func(t *testing.T) {
			for i := range part.rows {
				r := &part.rows[i]
				t.Run(r.id, func(t *testing.T) { lines = append(lines, r.run(t, s, part.name == "relatives")...) })
			}
		})
		if len(lines) > 0 {
			t.Logf("%s:\n%s", part.name, table(lines))
			if name := os.Getenv("PALISADE_ESCAPES_TABLE"); name != "" {
				if err := appendFile(name, part.name+"\n\n"+table(lines)+"\n"); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

func appendFile(name, text string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func (r *row) run(t *testing.T, s *scratch, relative bool) []printed {
	names := r.runtimes()
	if len(names) == 0 || r.hook != "" && !all() && !one() {
		t.Skip("of the runtimes of `make escapes`")
	}
	ways := r.ways
	if len(ways) == 0 {
		ways = []string{wayCreate, wayRun, wayExec}
	}
	var out []printed
	// A race is not won each time.
	known := r.open == "" || r.rounds > 0
	for _, name := range names {
		rt := s.named(t, name)
		line := printed{id: r.id, fixed: r.fixed, runtime: rt.name, what: r.what, layer: r.layer}
		var plain cell
		var alone []string
		for _, way := range ways {
			c := r.try(t, s, rt, bare, way)
			alone = append(alone, c.String())
			if plain.outcome != outReached {
				plain = c
			}
		}
		line.bare = strings.Join(merge(alone), "; ")
		switch {
		case r.bare && plain.outcome != outReached && r.rounds > 0 && !all():
			t.Logf("%s alone: not won in so few rounds: %v", rt.name, plain)
		case r.bare && plain.outcome != outReached:
			t.Errorf("%s alone: %v, want it reached", rt.name, plain)
		case !r.bare && plain.outcome == outReached:
			t.Errorf("%s alone: %v, want it not reached: %s", rt.name, plain, r.why)
		}
		if !r.bare && r.why != "" {
			line.layer = r.why
			if r.layer != "" {
				line.layer += "; " + r.layer
			}
		}
		for _, pol := range []string{policyDefault, policyStrict} {
			var cells []string
			for i, way := range ways {
				// Relatives, and short runs, go fewer ways.
				if relative && pol == policyStrict && i > 0 || !all() && (pol == policyStrict && (i > 0 || relative) || relative && i > 1) {
					break
				}
				c := r.try(t, s, rt, pol, way)
				switch {
				case c.outcome == outReached && r.open == "":
					t.Errorf("%s under %s, %s: %v", rt.name, pol, way, c)
					c.outcome = "NOT STOPPED"
				case c.outcome == outReached:
					c.outcome, known = "open: "+r.open, true
				}
				cells = append(cells, c.String())
			}
			text := strings.Join(merge(cells), "; ")
			if pol == policyDefault {
				line.def = text
			} else {
				line.strict = text
			}
		}
		out = append(out, line)
	}
	if !known {
		t.Errorf("not reached under Palisade, and the row says that it is: %s", r.open)
	}
	if all() {
		for _, name := range r.control {
			rt := s.named(t, name)
			for _, way := range ways {
				if c := r.try(t, s, rt, bare, way); c.outcome == outReached {
					t.Errorf("%s, which has the fix, alone, %s: %v: the effect says nothing", rt.name, way, c)
				}
			}
		}
	}
	return out
}

// merge joins cells that differ in the way alone.
func merge(cells []string) []string {
	way := regexp.MustCompile(` \((run|create\+start|exec)\)`)
	plain := map[string]int{}
	for _, c := range cells {
		plain[way.ReplaceAllString(c, "")]++
	}
	if len(plain) == 1 && len(cells) > 1 {
		return []string{way.ReplaceAllString(cells[0], "")}
	}
	return cells
}

// TestConfirmControl runs a container without any attack by every way in, on
// every runtime that the rows use: only then a refusal says something.
func TestConfirmControl(t *testing.T) {
	s := newScratch(t)
	names := append(slices.Clone(shortVersions), "crun")
	if all() {
		names = append(slices.Clone(RuncVersions), "crun")
	}
	for _, name := range names {
		rt := s.named(t, name)
		for _, pol := range []string{bare, policyDefault, policyStrict} {
			for _, way := range []string{wayCreate, wayRun, wayExec} {
				a := s.attempt(t, rt, pol, way, 0)
				a.args("/inside", "status")
				res := a.do()
				removeAll(t, a.dir)
				mode, ok := line(res.out, "seccomp")
				want := "2 ok"
				if pol == bare {
					want = "0 ok"
				}
				if noPreserve := name == "1.0.0-rc6" && pol != bare && way == wayExec; noPreserve {
					if ok {
						t.Errorf("%s, %s, %s: ran: %s", rt.name, pol, way, res.out)
					}
					continue
				}
				if !ok || mode != want {
					t.Errorf("%s, %s, %s: %s: exit code %d: %s", rt.name, pol, way, res.call, res.code, res.out)
				}
			}
		}
	}
	oracle.Tool(t, "runc", "apt: runc")
}
