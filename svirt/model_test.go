// SPDX-License-Identifier: Apache-2.0

package svirt

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/selinux"
)

// crashing is a Store that dies now and then, before or after the commit, as a
// process does that is killed; what the caller sees is an error either way.
type crashing struct {
	*Memory
	rng *rand.Rand
}

var errKilled = errors.New("killed")

func (c crashing) Update(fn func(Tx) error) error {
	switch c.rng.IntN(40) {
	case 0:
		return errKilled
	case 1:
		// The caller dies after some of its writes: nothing of them stays.
		return c.Memory.Update(func(tx Tx) error { return errors.Join(fn(tx), errKilled) })
	case 2:
		return errors.Join(c.Memory.Update(fn), errKilled)
	}
	return c.Memory.Update(fn)
}

// model is what must be true, kept apart from how the registry does it: who
// carries which label, by whatever authority.
type model struct {
	t       testing.TB
	carries map[string]selinux.Level // live holder → label, members of a group by the group's name
}

// add fails when the new holder's label dominates, or is dominated by, that of
// another. It compares with everybody: the registry's shortcuts are under test.
func (m *model) add(who string, level selinux.Level) {
	if have, ok := m.carries[who]; ok {
		if have != level {
			m.t.Fatalf("%s carries %s and was given %s", who, have, level)
		}
		return
	}
	for other, l := range m.carries {
		if l.Compare(level) != selinux.Incomparable {
			m.t.Fatalf("%s got %s, which is not apart from %s of %s", who, level, l, other)
		}
	}
	m.carries[who] = level
}

// TestModel lets two processes with one store allocate, bind, drain, free, crash
// and restart among foreign labels, and compares each step with the model.
// SVIRT_STEPS sets the number of steps.
func TestModel(t *testing.T) {
	steps := 60_000
	if s := os.Getenv("SVIRT_STEPS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		steps = n
	}
	for _, categories := range []int{5, 12, 40} {
		t.Run(fmt.Sprint(categories), func(t *testing.T) { runModel(t, categories, steps/3, uint64(categories)) })
	}
}

func runModel(t *testing.T, categories, steps int, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	clock := time.Unix(1_000_000, 0)
	store := crashing{&Memory{}, rng}
	registry := func() *Registry {
		return &Registry{Store: store, Categories: categories, Quarantine: time.Minute, Now: func() time.Time { return clock }}
	}
	processes := []*Registry{registry(), registry()}
	m := &model{t: t, carries: map[string]selinux.Level{}}
	state := map[string]State{} // what the containers' owner knows
	group := map[string]string{}
	members := map[string]int{}
	foreign := map[string]string{} // ID → level, drawn by somebody else
	parse := func(s string) selinux.Level {
		l, err := selinux.ParseLevel(s)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	owner := func(id string) string {
		if g := group[id]; g != "" {
			return "group " + g
		}
		return id
	}
	gone := func(id string) {
		delete(state, id)
		if g := group[id]; g != "" {
			delete(group, id)
			if members[g]--; members[g] == 0 {
				delete(m.carries, "group "+g)
			}
			return
		}
		delete(m.carries, id)
	}
	allocated, refused := 0, 0
	for step := range steps {
		clock = clock.Add(time.Duration(rng.IntN(2000)) * time.Millisecond)
		r := processes[rng.IntN(2)]
		id := fmt.Sprintf("c%d", rng.IntN(3*categories))
		switch op := rng.IntN(100); {
		case op < 45:
			claim := Claim{ID: id}
			if _, held := state[id]; !held {
				switch rng.IntN(10) {
				case 0:
					claim.Shared = fmt.Sprintf("g%d", rng.IntN(3))
				case 1: // a label of any size, canonical or not
					cats := make([]string, 1+rng.IntN(4))
					for i := range cats {
						cats[i] = fmt.Sprintf("c%d", rng.IntN(categories))
					}
					claim.Level = fmt.Sprintf("s%d:%s", rng.IntN(2), strings.Join(cats, ","))
				case 2:
					claim.Sensitivity = "s1"
				}
			} else {
				claim.Shared = group[id]
			}
			rec, err := r.Reserve(claim)
			switch {
			case err == nil:
				allocated++
				if _, held := state[id]; !held && claim.Shared != "" {
					group[id] = claim.Shared
					members[claim.Shared]++
				}
				m.add(owner(id), parse(rec.Level))
				state[id] = rec.State
			case errors.Is(err, errKilled):
				// Perhaps it happened, perhaps not: the one who comes back asks.
				recovered(t, store.Memory, id, func(rec Record) {
					if _, held := state[id]; !held && rec.Group != "" {
						group[id] = rec.Group
						members[rec.Group]++
					}
					m.add(owner(id), parse(rec.Level))
					state[id] = rec.State
				})
			case errors.Is(err, ErrExhausted):
				refused++
				full(t, m, store.Memory, categories, r, claim)
			case errors.Is(err, ErrInUse), errors.Is(err, ErrNotPrivate):
				refused++
			default:
				t.Fatalf("step %d: %+v: %v", step, claim, err)
			}
		case op < 60:
			if err := r.Bind(id); err == nil {
				state[id] = Bound
			}
		case op < 70:
			if err := r.Drain(id); err == nil {
				state[id] = Draining
			}
		case op < 90:
			err := r.Release(id)
			if err != nil && !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			if _, held := state[id]; held {
				if _, still, _ := lookUp(store.Memory, id); !still {
					gone(id)
				}
			}
		case op < 94:
			// Somebody else draws alone, as other engines do, or lets go.
			f := fmt.Sprintf("f%d", rng.IntN(4))
			if foreign[f] != "" {
				delete(foreign, f)
			} else {
				foreign[f] = fmt.Sprintf("s0:c%d,c%d", rng.IntN(categories), rng.IntN(categories))
			}
			var seen []Observation
			for id, level := range foreign {
				seen = append(seen, Observation{Source: "docker", ID: id, Level: level})
			}
			if _, err := r.Reconcile(seen); err != nil && !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			// What the registry blocks counts as carried from now on.
			for who := range m.carries {
				if strings.HasPrefix(who, "foreign:") {
					delete(m.carries, who)
				}
			}
			list, err := registry().List()
			if err != nil && !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			for _, rec := range list {
				if rec.State == Foreign {
					m.carries[rec.ID] = parse(rec.Level) // it may well clash: that is what is reported
				}
			}
		case op < 97:
			processes[rng.IntN(2)] = registry() // a restart: all knowledge is in the store
		default:
			if _, err := r.Expire(); err != nil && !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
		}
		if step%500 == 0 {
			violations, err := registry().Check(nil)
			if err != nil && !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			for _, v := range violations {
				// Two labels may clash only where somebody else gave one out.
				if !strings.Contains(strings.Join(v.Holders, " "), foreignPrefix) {
					t.Fatalf("step %d: %+v", step, v)
				}
			}
		}
	}
	t.Logf("%d steps: %d allocations, %d refusals, %d held at the end", steps, allocated, refused, len(m.carries))
	if allocated == 0 || refused == 0 {
		t.Error("the run did not reach both success and refusal")
	}
}

func lookUp(m *Memory, id string) (rec Record, ok bool, err error) {
	err = m.View(func(tx Tx) error {
		rec, ok, err = tx.ByID(id)
		return err
	})
	return rec, ok, err
}

func recovered(t *testing.T, m *Memory, id string, fn func(Record)) {
	t.Helper()
	if rec, ok, err := lookUp(m, id); err != nil {
		t.Fatal(err)
	} else if ok {
		fn(rec)
	}
}

// full verifies that "exhausted" was true: no pair is apart from all holders.
func full(t *testing.T, m *model, store *Memory, categories int, r *Registry, c Claim) {
	t.Helper()
	var s uint16
	if c.Sensitivity == "s1" {
		s = 1
	}
	var blocked []selinux.Level
	for _, l := range m.carries {
		blocked = append(blocked, l)
	}
	_ = store.View(func(tx Tx) error {
		return tx.Each(func(rec Record) error {
			if l, err := selinux.ParseLevel(rec.Level); err == nil && !r.rested(rec) {
				blocked = append(blocked, l)
			}
			return nil
		})
	})
	for k := range categories * (categories - 1) / 2 {
		i, j := pair(k)
		l := selinux.Level{Sensitivity: s, Categories: selinux.Categories(uint16(i), uint16(j))}
		free := true
		for _, b := range blocked {
			free = free && b.Compare(l) == selinux.Incomparable
		}
		if free {
			t.Fatalf("exhausted although %s is free", l)
		}
	}
}

// TestUniform draws many labels and looks whether some are preferred.
func TestUniform(t *testing.T) {
	const n, draws = 6, 15000
	counts := map[string]int{}
	r := &Registry{Store: &Memory{}, Categories: n, Quarantine: -1}
	for i := range draws {
		id := fmt.Sprint(i)
		rec, err := r.Reserve(Claim{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		counts[rec.Level]++
		if err := r.Release(id); err != nil {
			t.Fatal(err)
		}
	}
	// 15 pairs, 1000 draws each: chi-square with 14 degrees of freedom stays
	// below 50 but once in 100,000 runs.
	chi := 0.0
	for _, c := range counts {
		d := float64(c) - draws/15.0
		chi += d * d / (draws / 15.0)
	}
	if len(counts) != 15 || chi > 50 {
		t.Errorf("%d labels drawn, chi-square %.1f: %v", len(counts), chi, counts)
	}
}

func TestDominance(t *testing.T) {
	tests := []struct{ held, asked, want string }{
		{"s0:c1,c2", "s0:c2,c1", "is held by"},
		{"s0:c1,c2", "s0:c01,c2", "expected a category"},
		{"s0:c1,c2", "s0:c1,c2,c3", "dominates s0:c1,c2"},
		{"s0:c1,c2", "s0:c0.c1023", "dominates s0:c1,c2"},
		{"s0:c1,c2", "s0:c1", "is dominated by s0:c1,c2"},
		{"s0:c1,c2,c3", "s0:c1,c3", "is dominated by"},
		{"s0:c1,c2", "s1:c1,c2", "dominates s0:c1,c2"},
		{"s1:c1,c2", "s0:c1,c2", "is dominated by s1"},
		{"s0:c1", "s0:c1,c7", "dominates s0:c1"},
		{"s0:c1,c2", "s0:c1,c3", ""},
		{"s0:c1,c2", "s1:c3,c4", ""},
		{"s0:c1,c2", "s0:c3,c4,c5", ""},
		{"s0:c1,c2", "s0", "no categories"},
		{"s0:c1,c2", "s0:c3,c1024", "c0 to c1023"},
		{"s0:c1,c2", "s0-s0:c3,c4", "-"},
		{"s0:c1,c2", "nonsense", "nonsense"},
	}
	for _, tt := range tests {
		r := &Registry{Store: &Memory{}}
		if _, err := r.Reserve(Claim{ID: "a", Level: tt.held}); err != nil {
			t.Fatal(err)
		}
		_, err := r.Reserve(Claim{ID: "b", Level: tt.asked})
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s beside %s: %v", tt.asked, tt.held, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s beside %s: %v, want an error with %q", tt.asked, tt.held, err, tt.want)
		}
	}
}

func TestGroup(t *testing.T) {
	r := &Registry{Store: &Memory{}}
	var level string
	for _, id := range []string{"a", "b", "c"} {
		rec, err := r.Reserve(Claim{ID: id, Shared: "pod"})
		if err != nil {
			t.Fatal(err)
		}
		if level != "" && rec.Level != level {
			t.Errorf("%s has %s, the others %s", id, rec.Level, level)
		}
		level = rec.Level
	}
	if _, err := r.Reserve(Claim{ID: "x", Level: level}); !errors.Is(err, ErrInUse) {
		t.Errorf("somebody else got the group's label: %v", err)
	}
	for _, id := range []string{"a", "b"} {
		if err := r.Release(id); err != nil {
			t.Fatal(err)
		}
	}
	if rec, err := r.Reserve(Claim{ID: "d", Shared: "pod"}); err != nil || rec.Level != level {
		t.Errorf("a new member: %+v, %v", rec, err)
	}
	if err := r.Release("shared:pod"); err == nil {
		t.Error("a group was released under its members")
	}
	if v, err := r.Check(nil); err != nil || len(v) != 0 {
		t.Errorf("check: %v, %v", v, err)
	}
	for _, id := range []string{"c", "d"} {
		if err := r.Release(id); err != nil {
			t.Fatal(err)
		}
	}
	if list, _ := r.List(); len(list) != 1 || list[0].State != Quarantine {
		t.Errorf("after the last member: %+v", list)
	}
}

func TestContent(t *testing.T) {
	now := time.Unix(0, 0)
	r := &Registry{Store: &Memory{}, Now: func() time.Time { return now }}
	a, err := r.Reserve(Claim{ID: "a", Content: []string{"/srv/data"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Bind("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Reserve(Claim{ID: "b", Content: []string{"/srv/data"}}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "label of a") {
		t.Errorf("the volume of a live container was taken: %v", err)
	}
	if _, ok, _ := lookUp(r.Store.(*Memory), "b"); ok {
		t.Error("the refused claim left a record")
	}
	if err := r.Drain("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Reserve(Claim{ID: "b", Content: []string{"/srv/data"}}); err != nil {
		t.Errorf("the volume of a container that is gone: %v", err)
	}
	// Nothing carries a's label any more, so that it rests and is free then.
	if _, err := r.Reserve(Claim{ID: "c", Level: a.Level}); !errors.Is(err, ErrInUse) {
		t.Errorf("given out while it rests: %v", err)
	}
	now = now.Add(DefaultQuarantine)
	if _, err := r.Reserve(Claim{ID: "c", Level: a.Level}); err != nil {
		t.Errorf("after its rest: %v", err)
	}
}

func TestReconcile(t *testing.T) {
	r := &Registry{Store: &Memory{}}
	ours, err := r.Reserve(Claim{ID: "web", Level: "s0:c1,c2"})
	if err != nil {
		t.Fatal(err)
	}
	observed := []Observation{
		{Source: "docker", ID: "d1", Level: "s0:c5,c6"},
		{Source: "process", ID: "42", Level: "s0:c5,c6"},         // the same container's process
		{Source: "process", ID: "43", Level: "s0:c1,c2"},         // our own
		{Source: "process", ID: "1", Level: "s0-s0:c0.c1023"},    // an engine
		{Source: "process", ID: "44", Level: "s0"},               // nothing
		{Source: "podman", ID: "p1", Level: "s0:c2,c1"},          // drawn by somebody else: the same as ours
		{Source: "libvirt", ID: "vm", Level: "s0:c1,c2,c3"},      // dominates ours
		{Source: "containerd", ID: "k", Level: "not even close"}, // not a level
	}
	rep, err := r.Reconcile(observed)
	if err != nil {
		t.Fatal(err)
	}
	adopted := map[string]string{}
	for _, rec := range rep.Adopted {
		adopted[rec.ID] = rec.Level
	}
	if len(adopted) != 2 || adopted["foreign:docker:d1"] != "s0:c5,c6" || adopted["foreign:libvirt:vm"] != "s0:c1.c3" {
		t.Errorf("adopted %v", adopted)
	}
	holders := map[string]bool{}
	for _, v := range rep.Violations {
		holders[strings.Join(v.Holders, " ")] = true
	}
	for _, want := range []string{"web podman:p1", "foreign:libvirt:vm web"} {
		if !holders[want] {
			t.Errorf("violation %q is not reported: %+v", want, rep.Violations)
		}
	}
	if _, err := r.Reserve(Claim{ID: "new", Level: "s0:c5,c6"}); !errors.Is(err, ErrInUse) {
		t.Errorf("a foreign label was given out: %v", err)
	}
	again, err := r.Reconcile([]Observation{{Source: "process", ID: "43", Level: ours.Level}})
	if err != nil || len(again.Gone) != 2 || len(again.Violations) != 0 {
		t.Errorf("after the others are gone: %+v, %v", again, err)
	}
}
