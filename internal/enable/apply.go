// SPDX-License-Identifier: Apache-2.0

package enable

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/internal/configfile"
	"github.com/palisade-sec/palisade/internal/hostfacts"
)

// journalDir keeps what was done, so that it can be undone: a file for each
// mechanism.
const journalDir = "/var/lib/palisade/enable"

// journal is what was done, in order. It is written before a step begins and
// again when it is done, so that undoing works after a crash at any point.
type journal struct {
	Steps []journalStep `json:"steps"`
}

type journalStep struct {
	ID    string        `json:"id"`
	Edits []journalEdit `json:"edits,omitempty"`
	Undo  [][]string    `json:"undo,omitempty"`
	Done  bool          `json:"done"`
}

// journalEdit keeps contents as they were; null for a file that was not there.
type journalEdit struct {
	Path   string  `json:"path"`
	Before *string `json:"before"`
	After  *string `json:"after"`
}

func (j journal) has(id string) bool {
	return slices.ContainsFunc(j.Steps, func(s journalStep) bool { return s.ID == id && s.Done })
}

func journalPath(root, mechanism string) string {
	return filepath.Join(root, journalDir, mechanism+".json")
}

func readJournal(root, mechanism string) (journal, error) {
	var j journal
	b, err := configfile.Read(journalPath(root, mechanism))
	if err != nil || b == nil {
		return j, err
	}
	if err := json.Unmarshal(b, &j); err != nil {
		return j, fmt.Errorf("%s: %w", journalPath(root, mechanism), err)
	}
	return j, nil
}

func (j journal) write(root, mechanism string) error {
	path := journalPath(root, mechanism)
	if len(j.Steps) == 0 {
		err := os.Remove(path)
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return err
	}
	text, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return err
	}
	return configfile.Replace(path, append(text, '\n'), path)
}

// set puts a step into the journal in the place of an earlier try of it. What
// was there before the first try is what undoing goes back to.
func (j *journal) set(s journalStep) {
	i := slices.IndexFunc(j.Steps, func(o journalStep) bool { return o.ID == s.ID })
	if i < 0 {
		j.Steps = append(j.Steps, s)
		return
	}
	for n := range s.Edits {
		for _, old := range j.Steps[i].Edits {
			if old.Path == s.Edits[n].Path {
				s.Edits[n].Before = old.Before
			}
		}
	}
	for _, undo := range j.Steps[i].Undo {
		if !slices.ContainsFunc(s.Undo, func(o []string) bool { return slices.Equal(o, undo) }) {
			s.Undo = append(s.Undo, undo)
		}
	}
	j.Steps[i] = s
}

func text(b []byte) *string {
	if b == nil {
		return nil
	}
	s := string(b)
	return &s
}

func content(s *string) []byte {
	if s == nil {
		return nil
	}
	return []byte(*s)
}

// Doer runs the commands of a plan.
type Doer interface {
	Run(ctx context.Context, argv []string) error
}

// Commands runs commands below a root, by chroot where that is not /.
type Commands struct {
	Root string
	// Output gets what the commands print.
	Output io.Writer
}

// Run runs one command to its end.
func (c Commands) Run(ctx context.Context, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	if c.Root != "" && c.Root != "/" {
		root, err := filepath.Abs(c.Root)
		if err != nil {
			return err
		}
		// Package scripts and setfiles need /proc, which another tree does not
		// have; in a mount namespace of its own it is gone with the command.
		const enter = `mount -t proc proc "$0/proc" && exec chroot "$0" "$@"`
		cmd = exec.CommandContext(ctx, "unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", enter, root}, argv...)...)
	}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "HOME=/root"}
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	cmd.Stdout, cmd.Stderr = c.Output, c.Output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return nil
}

// errBlocked is the error of a plan that must not be applied.
var errBlocked = errors.New("the plan is blocked")

// Apply does the steps of the plan for a mechanism, and makes the plan anew
// after each: a step may bring the files of the next. Progress is called before
// each step. When a step fails its files become what they were, and the steps
// before it stay; the command can be repeated, and undone.
func Apply(ctx context.Context, root, mechanism string, o Options, do Doer, progress func(Step)) (Plan, error) {
	tried := map[string]bool{}
	for {
		f, err := Gather(ctx, root)
		if err != nil {
			return Plan{}, err
		}
		p, err := NewPlan(mechanism, f, o)
		if err != nil {
			return p, err
		}
		if len(p.Blockers) > 0 {
			return p, fmt.Errorf("%w: %s", errBlocked, p.Blockers[0])
		}
		pending := p.Pending()
		if len(pending) == 0 {
			return p, nil
		}
		step := pending[0]
		if tried[step.ID] {
			return p, fmt.Errorf("step %s was done and is not in effect", step.ID)
		}
		tried[step.ID] = true
		if progress != nil {
			progress(step)
		}
		if err := doStep(ctx, root, mechanism, step, do); err != nil {
			return p, fmt.Errorf("step %s: %w", step.ID, err)
		}
	}
}

func doStep(ctx context.Context, root, mechanism string, s Step, do Doer) error {
	j, err := readJournal(root, mechanism)
	if err != nil {
		return err
	}
	entry := journalStep{ID: s.ID, Undo: s.Undo}
	for _, e := range s.Edits {
		if e.Changes() {
			entry.Edits = append(entry.Edits, journalEdit{e.Path, text(e.Before), text(e.After)})
		}
	}
	j.set(entry)
	if err := j.write(root, mechanism); err != nil {
		return fmt.Errorf("keep the journal: %w", err)
	}
	// A kernel that refuses to change its mode must not find it changed at the
	// next boot: for the mode the command goes first.
	first, last := func() error { return configfile.Write(root, s.Edits) }, func() error {
		for _, argv := range s.Run {
			if err := do.Run(ctx, argv); err != nil {
				return err
			}
		}
		return nil
	}
	if s.ID == "mode" {
		first, last = last, first
	}
	if err := first(); err != nil {
		return err
	}
	if err := last(); err != nil {
		back := make([]configfile.Edit, 0, len(s.Edits))
		for _, e := range s.Edits {
			back = append(back, configfile.Edit{Path: e.Path, Before: e.After, After: e.Before})
		}
		if s.ID != "mode" {
			if berr := configfile.Write(root, back); berr != nil {
				err = errors.Join(err, berr)
			}
		}
		return err
	}
	i := slices.IndexFunc(j.Steps, func(o journalStep) bool { return o.ID == s.ID })
	j.Steps[i].Done = true
	return j.write(root, mechanism)
}

// Undoing is what taking a mechanism back would do.
type Undoing struct {
	Edits []configfile.Edit
	Run   [][]string
	// Kept are the files that were changed by somebody else since and are
	// edited by hand or left.
	Kept []string
}

// PlanUndo plans to take back what [Apply] did, last step first.
func PlanUndo(root, mechanism string) (Undoing, error) {
	var u Undoing
	j, err := readJournal(root, mechanism)
	if err != nil {
		return u, err
	}
	for _, s := range slices.Backward(j.Steps) {
		edits, kept, err := undoEdits(root, s)
		if err != nil {
			return u, err
		}
		u.Edits, u.Kept, u.Run = append(u.Edits, edits...), append(u.Kept, kept...), append(u.Run, s.Undo...)
	}
	return u, nil
}

func undoEdits(root string, s journalStep) (edits []configfile.Edit, kept []string, err error) {
	for _, e := range s.Edits {
		current, err := configfile.Read(filepath.Join(root, e.Path))
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", e.Path, err)
		}
		after, ok := revert(e.Path, current, content(e.Before), content(e.After))
		if !ok {
			kept = append(kept, e.Path)
			continue
		}
		if edit := (configfile.Edit{Path: e.Path, Before: current, After: after}); edit.Changes() {
			edits = append(edits, edit)
		}
	}
	return edits, kept, nil
}

// revert is a file without our change: to the byte when nobody else changed
// it, and otherwise as far as our part can be told from the rest.
func revert(path string, current, before, after []byte) ([]byte, bool) {
	switch {
	case string(current) == string(after) && (current == nil) == (after == nil), string(current) == string(before):
		return before, true
	case current == nil:
		return nil, true
	}
	switch path {
	case selinuxConfig:
		mode := hostfacts.ShellVariable(string(before), "SELINUX")
		if mode == "" {
			mode = "disabled"
		}
		return setShellVariables(current, [][2]string{{"SELINUX", mode}}), true
	case configfile.DockerDaemon:
		doc, err := configfile.ParseJSON(current)
		if err != nil {
			return nil, false
		}
		if old, err := configfile.ParseJSON(before); err == nil {
			if was := old.Root().Get("selinux-enabled"); was != nil {
				err := doc.Root().Set("selinux-enabled", string(was))
				return doc.Bytes(), err == nil
			}
		}
		doc.Root().Remove("selinux-enabled")
		return doc.Bytes(), true
	}
	return nil, false
}

// Undo takes back what [Apply] did, last step first. The kernel goes on as
// it was started until the next boot, except that SELinux becomes permissive.
// Labels stay on the files: without SELinux nobody looks at them.
func Undo(ctx context.Context, root, mechanism string, do Doer, progress func(id string)) (kept []string, err error) {
	j, err := readJournal(root, mechanism)
	if err != nil {
		return nil, err
	}
	for len(j.Steps) > 0 {
		s := j.Steps[len(j.Steps)-1]
		if progress != nil {
			progress(s.ID)
		}
		edits, left, err := undoEdits(root, s)
		if err != nil {
			return kept, err
		}
		kept = append(kept, left...)
		// A module's source goes after the module that was made of it.
		if err := configfile.Write(root, edits); err != nil {
			return kept, fmt.Errorf("undo %s: %w", s.ID, err)
		}
		for _, argv := range s.Undo {
			err := do.Run(ctx, argv)
			// A step that failed may have left nothing to take back, and a
			// kernel that runs without SELinux has no mode.
			if err != nil && s.Done && argv[0] != "setenforce" {
				return kept, fmt.Errorf("undo %s: %w", s.ID, err)
			}
		}
		j.Steps = j.Steps[:len(j.Steps)-1]
		if err := j.write(root, mechanism); err != nil {
			return kept, err
		}
	}
	return kept, nil
}
