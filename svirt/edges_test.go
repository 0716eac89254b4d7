// SPDX-License-Identifier: Apache-2.0

package svirt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/selinux"
)

// start is the clock's beginning in these tests.
var start = time.Unix(1_000_000, 0).UTC()

// edge is a registry with a clock that stands.
type edge struct {
	*Registry
	t      *testing.T
	memory *Memory
	clock  time.Time
}

func newEdge(t *testing.T, records ...Record) *edge {
	t.Helper()
	e := &edge{t: t, memory: &Memory{}, clock: start}
	e.Registry = &Registry{Store: e.memory, Now: func() time.Time { return e.clock }}
	for _, rec := range records {
		if rec.Since.IsZero() {
			rec.Since = start
		}
		if err := e.memory.Update(func(tx Tx) error { return tx.Put(rec) }); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// want compares the records, each as "ID LEVEL STATE" and what is set beyond that.
func (e *edge) want(what string, want ...string) {
	e.t.Helper()
	list, err := e.List()
	if err != nil {
		e.t.Fatal(err)
	}
	var got []string
	for _, r := range list {
		got = append(got, spell(r))
	}
	if !slices.Equal(got, want) {
		e.t.Errorf("%s: registry is\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func spell(r Record) string {
	s := fmt.Sprintf("%s %s %s", r.ID, r.Level, r.State)
	for _, x := range []struct{ name, value string }{{"group", r.Group}, {"holder", r.Holder}, {"bundle", r.Bundle}, {"content", strings.Join(r.Content, ",")}, {"last", r.Last}} {
		if x.value != "" {
			s += " " + x.name + "=" + x.value
		}
	}
	if r.Members != 0 {
		s += fmt.Sprintf(" members=%d", r.Members)
	}
	if after := r.Since.Sub(start); after != 0 {
		s += fmt.Sprintf(" +%s", after)
	}
	return s
}

// faulty is a store whose transactions fail at the n-th call.
type faulty struct {
	*Memory
	left  int
	puts  int
	calls int
}

var errBoom = errors.New("boom")

type faultyTx struct {
	Tx
	f *faulty
}

func (f *faulty) Update(fn func(Tx) error) error {
	return f.Memory.Update(func(tx Tx) error { return fn(faultyTx{tx, f}) })
}

func (f *faulty) View(fn func(Tx) error) error { return f.Update(fn) }

func (f *faulty) fail() error {
	f.calls++
	if f.left--; f.left == 0 {
		return errBoom
	}
	return nil
}

func (t faultyTx) ByID(id string) (Record, bool, error) {
	if err := t.f.fail(); err != nil {
		return Record{}, false, err
	}
	return t.Tx.ByID(id)
}

func (t faultyTx) ByLevel(level string) (Record, bool, error) {
	if err := t.f.fail(); err != nil {
		return Record{}, false, err
	}
	return t.Tx.ByLevel(level)
}

func (t faultyTx) Put(r Record) error {
	if err := t.f.fail(); err != nil {
		return err
	}
	t.f.puts++
	return t.Tx.Put(r)
}

func (t faultyTx) Delete(id string) error {
	if err := t.f.fail(); err != nil {
		return err
	}
	return t.Tx.Delete(id)
}

func (t faultyTx) Each(fn func(Record) error) error {
	if err := t.f.fail(); err != nil {
		return err
	}
	return t.Tx.Each(fn)
}

func (t faultyTx) EachIrregular(fn func(Record) error) error {
	if err := t.f.fail(); err != nil {
		return err
	}
	return t.Tx.EachIrregular(fn)
}

func (t faultyTx) EachOwn(prefix string, fn func(Record) error) error {
	if err := t.f.fail(); err != nil {
		return err
	}
	return t.Tx.EachOwn(prefix, fn)
}

// TestFaults has the store fail at each of its calls in turn, for every operation:
// the error comes out, and nothing of the operation stays.
func TestFaults(t *testing.T) {
	state := []Record{
		{ID: "one", Level: "s0:c1,c2", State: Reserved},
		{ID: "bound", Level: "s0:c3,c4", State: Bound, Content: []string{"/live"}},
		{ID: "gone", Level: "s0:c5,c6", State: Draining, Content: []string{"/data", "/more"}},
		{ID: "last", Level: "s0:c7,c8", State: Draining, Content: []string{"/single"}},
		{ID: "member", Level: "s0:c9,c10", State: Reserved, Group: "pod"},
		{ID: "odd", Level: "s0:c20.c22", State: Bound},
		{ID: "single", Level: "s0:c30", State: Bound},
		{ID: "shared:pod", Level: "s0:c9,c10", State: Bound, Members: 1},
		{ID: "quarantine:s0:c11,c12", Level: "s0:c11,c12", State: Quarantine, Last: "was"},
		{ID: "quarantine:s0:c13,c14", Level: "s0:c13,c14", State: Quarantine, Last: "old", Since: start.Add(-time.Hour)},
		{ID: "quarantine:s0:c40", Level: "s0:c40", State: Quarantine, Last: "old", Since: start.Add(-time.Hour)},
		{ID: "foreign:docker:d", Level: "s0:c15,c16", State: Foreign},
	}
	seen := []Observation{
		{Source: "docker", ID: "new", Level: "s0:c17,c18"},
		{Source: "podman", ID: "p", Level: "s0:c11,c12"},
		{Source: "libvirt", ID: "v", Level: "s0:c1,c2,c3"},
		{Source: "crio", ID: "one", Level: "s0:c1,c2"},
		{Source: "crio", ID: "two", Level: "s0:c1,c2"},
		{Source: "crio", ID: "sub", Level: "s0:c20,c21"},
		{Source: "crio", ID: "member", Level: "s0:c9,c10"},
	}
	reserve := func(c Claim) func(*Registry) error {
		return func(r *Registry) error {
			rec, err := r.Reserve(c)
			if err != nil && !reflect.DeepEqual(rec, Record{}) {
				return fmt.Errorf("with an error comes %+v", rec)
			}
			return err
		}
	}
	for name, op := range map[string]func(*Registry) error{
		"draw":             reserve(Claim{ID: "x"}),
		"draw higher":      reserve(Claim{ID: "x", Sensitivity: "s1"}),
		"explicit":         reserve(Claim{ID: "x", Level: "s0:c50,c51"}),
		"three":            reserve(Claim{ID: "x", Level: "s0:c50,c51,c52"}),
		"rested":           reserve(Claim{ID: "x", Level: "s0:c13,c14"}),
		"rested single":    reserve(Claim{ID: "x", Level: "s0:c40"}),
		"one category":     reserve(Claim{ID: "x", Level: "s0:c60"}),
		"woken":            reserve(Claim{ID: "was", Level: "s0:c11,c12"}),
		"adopted":          reserve(Claim{ID: "d", Level: "s0:c15,c16"}),
		"new group":        reserve(Claim{ID: "x", Shared: "g"}),
		"joined":           reserve(Claim{ID: "x", Shared: "pod"}),
		"joined by level":  reserve(Claim{ID: "x", Shared: "pod", Level: "s0:c10,c9"}),
		"content":          reserve(Claim{ID: "x", Content: []string{"/data"}}),
		"last content":     reserve(Claim{ID: "x", Content: []string{"/single"}}),
		"again":            reserve(Claim{ID: "one", Holder: "h", Content: []string{"/new"}}),
		"bind":             func(r *Registry) error { return r.Bind("one") },
		"drain":            func(r *Registry) error { return r.Drain("bound") },
		"release reserved": func(r *Registry) error { return r.Release("one") },
		"release bound":    func(r *Registry) error { return r.Release("bound") },
		"release member":   func(r *Registry) error { return r.Release("member") },
		"expire": func(r *Registry) error {
			n, err := r.Expire()
			if err == nil && n != 2 || err != nil && n != 0 {
				return fmt.Errorf("%d expired with %w", n, err)
			}
			return err
		},
		"list":  func(r *Registry) error { _, err := r.List(); return err },
		"check": func(r *Registry) error { _, err := r.Check(seen); return err },
		"reconcile": func(r *Registry) error {
			_, err := r.Reconcile(seen)
			return err
		},
		"reconcile nothing": func(r *Registry) error { _, err := r.Reconcile(nil); return err },
	} {
		t.Run(name, func(t *testing.T) {
			for n := 1; ; n++ {
				e := newEdge(t, state...)
				var before []string
				list, err := e.List()
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range list {
					before = append(before, spell(r))
				}
				f := &faulty{Memory: e.memory, left: n}
				r := &Registry{Store: f, Now: e.Now, Rand: zeros{}}
				err = op(r)
				if f.left > 0 {
					if err != nil {
						t.Errorf("without a fault: %v", err)
					}
					if n == 1 {
						t.Error("the store was not asked")
					}
					return
				}
				if !errors.Is(err, errBoom) {
					t.Fatalf("call %d fails: %v", n, err)
				}
				if name != "reconcile" && name != "reconcile nothing" { // they check in a second transaction
					e.want(fmt.Sprintf("call %d fails", n), before...)
				}
			}
		})
	}
}

// zeros is a source of randomness that always draws the first.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestIDs: 1 to 255 printable characters without a colon or space.
func TestIDs(t *testing.T) {
	for id, good := range map[string]bool{
		"": false, "a": true, "!": true, " ": false, "\x1f": false, ":": false, "a:b": false, "9": true, ";": true, "~": true, "\x7f": false, "\u0080": true, "é": true,
		"a b": false, "a\n": false, strings.Repeat("x", 255): true, strings.Repeat("x", 256): false,
	} {
		e := newEdge(t)
		if _, err := e.Reserve(Claim{ID: id}); (err == nil) != good || !good && !errors.Is(err, ErrID) {
			t.Errorf("ID %q: %v", id, err)
		}
		if !good {
			e.want("a bad ID")
		}
		if id == "" {
			continue
		}
		if _, err := newEdge(t).Reserve(Claim{ID: "x", Shared: id}); (err == nil) != good || !good && !errors.Is(err, ErrID) {
			t.Errorf("group %q: %v", id, err)
		}
	}
	for id, want := range map[string][2]bool{"web": {}, "shared:x": {true}, "quarantine:s0:c1,c2": {true, true}, "foreign:a:b": {true}, "xquarantine:": {true}} {
		if got := [2]bool{Own(id), Rests(id)}; got != want {
			t.Errorf("%s: own, rests = %v", id, got)
		}
	}
	for state, live := range map[State]bool{Reserved: true, Bound: true, Draining: true, Foreign: true, Quarantine: false} {
		if (Record{State: state}).Live() != live {
			t.Errorf("%s: live %v", state, !live)
		}
	}
}

// TestAgain: what a holder gets that asks a second time.
func TestAgain(t *testing.T) {
	have := Record{ID: "a", Level: "s0:c1,c2", State: Reserved, Holder: "h", Bundle: "/b", Content: []string{"/x"}}
	with := func(change func(*Record)) Record {
		r := have
		change(&r)
		return r
	}
	later := func(s State) func(*Record) { return func(r *Record) { r.State = s } }
	for _, tt := range []struct {
		name   string
		have   Record
		claim  Claim
		want   string // the record, or the text of an error that wraps ErrInUse
		writes bool
	}{
		{"nothing", have, Claim{}, "a s0:c1,c2 reserved holder=h bundle=/b content=/x", false},
		{"the level in another spelling", have, Claim{Level: "s0:c2,c1"}, "a s0:c1,c2 reserved holder=h bundle=/b content=/x", false},
		{"another level", have, Claim{Level: "s0:c1,c3"}, "it holds s0:c1,c2, not s0:c1,c3", false},
		{"a group", have, Claim{Shared: "g"}, `in group "", not "g"`, false},
		{"a group and the level", have, Claim{Shared: "g", Level: "s0:c1,c2"}, `in group "", not "g"`, false},
		{"the same holder", have, Claim{Holder: "h", Bundle: "/b"}, "a s0:c1,c2 reserved holder=h bundle=/b content=/x", false},
		{"another holder", have, Claim{Holder: "i", Bundle: "/b"}, "a s0:c1,c2 reserved holder=i bundle=/b content=/x", true},
		{"another bundle", have, Claim{Holder: "h", Bundle: "/c"}, "a s0:c1,c2 reserved holder=h bundle=/c content=/x", true},
		{"a bundle without a holder", have, Claim{Bundle: "/c"}, "a s0:c1,c2 reserved holder=h bundle=/b content=/x", false},
		{"the same content", have, Claim{Content: []string{"/x"}}, "a s0:c1,c2 reserved holder=h bundle=/b content=/x", false},
		{"more content, in order", have, Claim{Content: []string{"/z", "/x", "/a"}}, "a s0:c1,c2 reserved holder=h bundle=/b content=/a,/x,/z", true},
		{"bound", have, Claim{Bound: true}, "a s0:c1,c2 bound holder=h bundle=/b content=/x +1s", true},
		{"bound again", with(later(Bound)), Claim{Bound: true}, "a s0:c1,c2 bound holder=h bundle=/b content=/x", false},
		{"of one that runs", with(later(Bound)), Claim{}, "a s0:c1,c2 bound holder=h bundle=/b content=/x", false},
		{"of one that is gone", with(later(Draining)), Claim{}, "a s0:c1,c2 reserved holder=h bundle=/b content=/x +1s", true},
		{"of one that is gone, bound", with(later(Draining)), Claim{Bound: true}, "a s0:c1,c2 bound holder=h bundle=/b content=/x +1s", true},
		{"a member", with(func(r *Record) { r.Group = "g" }), Claim{Shared: "g"}, "a s0:c1,c2 reserved group=g holder=h bundle=/b content=/x", false},
		{"a member by its level", with(func(r *Record) { r.Group = "g" }), Claim{Level: "s0:c1,c2"}, "a s0:c1,c2 reserved group=g holder=h bundle=/b content=/x", false},
		{"a member with nothing", with(func(r *Record) { r.Group = "g" }), Claim{}, `in group "g", not ""`, false},
		{"a member of another", with(func(r *Record) { r.Group = "g" }), Claim{Shared: "f"}, `in group "g", not "f"`, false},
	} {
		e := newEdge(t, tt.have)
		f := &faulty{Memory: e.memory}
		e.Store = f
		e.clock = start.Add(time.Second)
		tt.claim.ID = "a"
		got, err := e.Reserve(tt.claim)
		if strings.HasPrefix(tt.want, "a s0") {
			if err != nil || spell(got) != tt.want {
				t.Errorf("%s: %s, %v; want %s", tt.name, spell(got), err, tt.want)
			}
			e.want(tt.name, tt.want)
		} else {
			if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %s, %v; want %s", tt.name, spell(got), err, tt.want)
			}
			e.want(tt.name, spell(withSince(tt.have)))
		}
		if (f.puts > 0) != tt.writes {
			t.Errorf("%s: %d writes", tt.name, f.puts)
		}
	}
	if _, err := newEdge(t, have).Reserve(Claim{ID: "a", Level: "nonsense"}); err == nil || errors.Is(err, ErrInUse) {
		t.Errorf("a malformed level: %v", err)
	}
}

// TestNew: what a new holder gets, and what becomes of others by it.
func TestNew(t *testing.T) {
	draining := Record{ID: "old", Level: "s0:c5,c6", State: Draining, Content: []string{"/a", "/b"}}
	for _, tt := range []struct {
		name    string
		records []Record
		claim   Claim
		want    []string // records, or the text of one error
	}{
		{"drawn", nil, Claim{Holder: "h", Bundle: "/b"}, []string{"x s0:c0,c1 reserved holder=h bundle=/b"}},
		{"bound", nil, Claim{Bound: true}, []string{"x s0:c0,c1 bound"}},
		{"at another sensitivity", nil, Claim{Sensitivity: "s3"}, []string{"x s3:c0,c1 reserved"}},
		{"no sensitivity", nil, Claim{Sensitivity: "s0:c1"}, []string{"want one such as s0"}},
		{"nonsense", nil, Claim{Sensitivity: "x"}, []string{"want one such as s0"}},
		{"beside the first", []Record{{ID: "a", Level: "s0:c0,c1", State: Bound}}, Claim{Level: "s0:c1,c2"}, []string{"a s0:c0,c1 bound", "x s0:c1,c2 reserved"}},
		{"a new group", nil, Claim{Shared: "g"}, []string{"shared:g s0:c0,c1 bound members=1", "x s0:c0,c1 reserved group=g"}},
		{"a new group by level", nil, Claim{Shared: "g", Level: "s0:c8,c7"}, []string{"shared:g s0:c7,c8 bound members=1", "x s0:c7,c8 reserved group=g"}},
		{
			"a member more",
			[]Record{{ID: "a", Level: "s0:c7,c8", State: Bound, Group: "g"}, {ID: "shared:g", Level: "s0:c7,c8", State: Bound, Members: 1}},
			Claim{Shared: "g", Level: "s0:c8,c7"},
			[]string{"a s0:c7,c8 bound group=g", "shared:g s0:c7,c8 bound members=2", "x s0:c7,c8 reserved group=g"},
		},
		{"a group's other level", []Record{{ID: "shared:g", Level: "s0:c7,c8", State: Bound, Members: 1}}, Claim{Shared: "g", Level: "s0:c1,c2"}, []string{"group g has s0:c7,c8, not s0:c1,c2"}},
		{"a group's malformed level", []Record{{ID: "shared:g", Level: "s0:c7,c8", State: Bound, Members: 1}}, Claim{Shared: "g", Level: "x"}, []string{"group g has s0:c7,c8, not x"}},
		{
			"one of two contents",
			[]Record{draining},
			Claim{Content: []string{"/a"}},
			[]string{"old s0:c5,c6 draining content=/b", "x s0:c0,c1 reserved content=/a"},
		},
		{
			"both contents",
			[]Record{draining},
			Claim{Content: []string{"/b", "/a"}},
			[]string{"quarantine:s0:c5,c6 s0:c5,c6 quarantine last=old", "x s0:c0,c1 reserved content=/a,/b"},
		},
		{"content of a live one", []Record{{ID: "old", Level: "s0:c5,c6", State: Reserved, Content: []string{"/a"}}}, Claim{Content: []string{"/a"}}, []string{"/a carries the label of old, which is reserved"}},
		{
			"content of one's group",
			[]Record{
				{ID: "a", Level: "s0:c7,c8", State: Bound, Group: "g", Content: []string{"/a"}}, {ID: "shared:g", Level: "s0:c7,c8", State: Bound, Members: 1},
			},
			Claim{Shared: "g", Content: []string{"/a", "/c"}},
			[]string{"a s0:c7,c8 bound group=g content=/a", "shared:g s0:c7,c8 bound members=2", "x s0:c7,c8 reserved group=g content=/a,/c"},
		},
		{
			"the last one's rest",
			[]Record{{ID: "quarantine:s0:c1,c2", Level: "s0:c1,c2", State: Quarantine, Last: "x"}},
			Claim{Level: "s0:c2,c1"},
			[]string{"x s0:c1,c2 reserved"},
		},
		{"another one's rest", []Record{{ID: "quarantine:s0:c1,c2", Level: "s0:c1,c2", State: Quarantine, Last: "y"}}, Claim{Level: "s0:c2,c1"}, []string{"is held by quarantine:s0:c1,c2"}},
		{"its rest as a group", []Record{{ID: "quarantine:s0:c1,c2", Level: "s0:c1,c2", State: Quarantine, Last: "x"}}, Claim{Level: "s0:c2,c1", Shared: "g"}, []string{"is held by quarantine:s0:c1,c2"}},
		{"seen with it", []Record{{ID: "foreign:docker:x", Level: "s0:c1,c2", State: Foreign}}, Claim{Level: "s0:c2,c1"}, []string{"x s0:c1,c2 reserved"}},
		{"seen with another", []Record{{ID: "foreign:docker:yx", Level: "s0:c1,c2", State: Foreign}}, Claim{Level: "s0:c2,c1"}, []string{"is held by foreign:docker:yx"}},
		{"held under such a name", []Record{{ID: "shared:x", Level: "s0:c1,c2", State: Bound}}, Claim{Level: "s0:c2,c1"}, []string{"is held by shared:x"}},
		{
			"rests beside a triple",
			[]Record{{ID: "q", Level: "s0:c1.c3", State: Quarantine, Since: start.Add(-DefaultQuarantine)}},
			Claim{Level: "s0:c1,c2"},
			[]string{"q s0:c1.c3 quarantine +-1m0s", "x s0:c1,c2 reserved"},
		},
		{"a triple that still rests", []Record{{ID: "q", Level: "s0:c1.c3", State: Quarantine, Since: start.Add(time.Second - DefaultQuarantine)}}, Claim{Level: "s0:c1,c2"}, []string{"is dominated by s0:c1.c3, which q holds"}},
		{"the last category", nil, Claim{Level: "s0:c1,c1023"}, []string{"x s0:c1,c1023 reserved"}},
		{"one too many", nil, Claim{Level: "s0:c1024"}, []string{"the policy has categories c0 to c1023"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEdge(t, tt.records...)
			e.Rand = zeros{}
			tt.claim.ID = "x"
			before, _ := e.List()
			rec, err := e.Reserve(tt.claim)
			if len(tt.want) == 1 && !strings.HasPrefix(tt.want[0], "x ") {
				if err == nil || !strings.Contains(err.Error(), tt.want[0]) || !reflect.DeepEqual(rec, Record{}) {
					t.Errorf("%+v, %v; want %q", rec, err, tt.want[0])
				}
				if after, _ := e.List(); !reflect.DeepEqual(before, after) {
					t.Errorf("a refused claim left %+v of %+v", after, before)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			e.want("after the claim", tt.want...)
		})
	}
}

// TestMoves: bind and drain, from each state.
func TestMoves(t *testing.T) {
	for _, from := range []State{Reserved, Bound, Draining} {
		for to, move := range map[State]func(*edge) error{Bound: func(e *edge) error { return e.Bind("a") }, Draining: func(e *edge) error { return e.Drain("a") }} {
			e := newEdge(t, Record{ID: "a", Level: "s0:c1,c2", State: from})
			f := &faulty{Memory: e.memory}
			e.Store = f
			e.clock = start.Add(time.Second)
			if err := move(e); err != nil {
				t.Errorf("%s to %s: %v", from, to, err)
			}
			want := fmt.Sprintf("a s0:c1,c2 %s +1s", to)
			if from == to {
				want = fmt.Sprintf("a s0:c1,c2 %s", to) // since when it was
				if f.puts != 0 {
					t.Errorf("%s to %s is written", from, to)
				}
			}
			e.want(fmt.Sprintf("%s to %s", from, to), want)
		}
	}
	foreign := Record{ID: "f", Level: "s0:c1,c2", State: Foreign}
	group := Record{ID: "shared:g", Level: "s0:c3,c4", State: Bound, Members: 1}
	rests := Record{ID: "quarantine:s0:c5,c6", Level: "s0:c5,c6", State: Quarantine}
	for _, id := range []string{"f", "shared:g", "quarantine:s0:c5,c6", "nobody"} {
		e := newEdge(t, foreign, group, rests)
		for name, err := range map[string]error{"bind": e.Bind(id), "drain": e.Drain(id)} {
			if !errors.Is(err, ErrNotHeld) || !strings.HasPrefix(err.Error(), id+": ") {
				t.Errorf("%s %s: %v", name, id, err)
			}
		}
		e.want(id, "f s0:c1,c2 foreign", spell(withSince(rests)), spell(withSince(group)))
	}
}

func withSince(r Record) Record {
	r.Since = start
	return r
}

// TestReleases: what stays of a label that is given back.
func TestReleases(t *testing.T) {
	q := "quarantine:s0:c1,c2 s0:c1,c2 quarantine last=a"
	for _, tt := range []struct {
		name       string
		records    []Record
		id         string
		quarantine time.Duration
		want       []string
	}{
		{"nothing has carried", []Record{{ID: "a", Level: "s0:c1,c2", State: Reserved}}, "a", 0, nil},
		{"ran", []Record{{ID: "a", Level: "s0:c1,c2", State: Bound}}, "a", 0, []string{q}},
		{"content had", []Record{{ID: "a", Level: "s0:c1,c2", State: Draining}}, "a", 0, []string{q}},
		{"rests not", []Record{{ID: "a", Level: "s0:c1,c2", State: Bound}}, "a", -1, nil},
		{"rests long", []Record{{ID: "a", Level: "s0:c1,c2", State: Bound}}, "a", time.Hour, []string{q}},
		{"nobody", []Record{{ID: "a", Level: "s0:c1,c2", State: Bound}}, "b", 0, []string{"a s0:c1,c2 bound"}},
		{"a lost group", []Record{{ID: "a", Level: "s0:c1,c2", State: Bound, Group: "g"}}, "a", 0, nil},
		{
			"one of two",
			[]Record{{ID: "a", Level: "s0:c1,c2", State: Bound, Group: "g"}, {ID: "b", Level: "s0:c1,c2", State: Bound, Group: "g"}, {ID: "shared:g", Level: "s0:c1,c2", State: Bound, Members: 2}},
			"a", 0,
			[]string{"b s0:c1,c2 bound group=g", "shared:g s0:c1,c2 bound members=1"},
		},
		{
			"the last",
			[]Record{{ID: "a", Level: "s0:c1,c2", State: Reserved, Group: "g"}, {ID: "shared:g", Level: "s0:c1,c2", State: Bound, Members: 1}},
			"a", 0,
			[]string{"quarantine:s0:c1,c2 s0:c1,c2 quarantine last=shared:g"},
		},
	} {
		e := newEdge(t, tt.records...)
		e.Quarantine = tt.quarantine
		if err := e.Release(tt.id); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		e.want(tt.name, tt.want...)
	}
	e := newEdge(t, Record{ID: "shared:g", Level: "s0:c1,c2", State: Bound, Members: 1})
	if err := e.Release("shared:g"); err == nil || !strings.Contains(err.Error(), "last member") {
		t.Errorf("a group: %v", err)
	}
	e.want("a group", "shared:g s0:c1,c2 bound members=1")
}

// TestRest: a label rests to the end of its time and no longer, and the registry does
// not grow with containers that come and go.
func TestRest(t *testing.T) {
	for _, quarantine := range []time.Duration{0, time.Minute, 7 * time.Second} {
		e := newEdge(t)
		e.Quarantine = quarantine
		length := quarantine
		if length == 0 {
			length = DefaultQuarantine
		}
		if _, err := e.Reserve(Claim{ID: "a", Level: "s0:c1,c2", Bound: true}); err != nil {
			t.Fatal(err)
		}
		if err := e.Release("a"); err != nil {
			t.Fatal(err)
		}
		e.clock = start.Add(length - 1)
		if n, err := e.Expire(); n != 0 || err != nil {
			t.Errorf("%d over, a moment before: %v", n, err)
		}
		if _, err := e.Reserve(Claim{ID: "b", Level: "s0:c1,c2"}); !errors.Is(err, ErrInUse) {
			t.Errorf("a moment before: %v", err)
		}
		e.clock = start.Add(length)
		if n, err := e.Expire(); n != 1 || err != nil {
			t.Errorf("%d over: %v", n, err)
		}
		e.want("over")
	}

	// Only what rests goes.
	e := newEdge(t, Record{ID: "a", Level: "s0:c1,c2", State: Reserved}, Record{ID: "foreign:x:y", Level: "s0:c3,c4", State: Foreign})
	e.clock = start.Add(1000 * time.Hour)
	if n, err := e.Expire(); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	e.want("held", "a s0:c1,c2 reserved", "foreign:x:y s0:c3,c4 foreign")

	// A release takes away some of those that are over, and looks at no more.
	for rested, want := range map[int]int{0: 1, 1: 1, expireAlong - 1: 1, expireAlong: 1, expireAlong + 1: 2, expireAlong + 5: 6} {
		e := newEdge(t, Record{ID: "a", Level: "s0:c1,c2", State: Bound, Since: start.Add(-time.Hour)})
		for i := range rested {
			level := fmt.Sprintf("s0:c%d,c%d", 100+i, 200+i)
			if err := e.memory.Update(func(tx Tx) error {
				return tx.Put(Record{ID: quarantinePrefix + level, Level: level, State: Quarantine, Since: start.Add(-time.Hour)})
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.Release("a"); err != nil {
			t.Fatal(err)
		}
		if list, _ := e.List(); len(list) != want {
			t.Errorf("%d over: %d are left, want %d", rested, len(list), want)
		}
	}
}

// raw is a store whose records contradict each other, as no transaction would leave them.
type raw []Record

func (s raw) Update(fn func(Tx) error) error { return fn(s) }
func (s raw) View(fn func(Tx) error) error   { return fn(s) }
func (s raw) Put(Record) error               { return errBoom }
func (s raw) Delete(string) error            { return errBoom }

func (s raw) ByID(id string) (Record, bool, error) {
	i := slices.IndexFunc(s, func(r Record) bool { return r.ID == id })
	if i < 0 {
		return Record{}, false, nil
	}
	return s[i], true, nil
}

func (s raw) ByLevel(level string) (Record, bool, error) {
	i := slices.IndexFunc(s, func(r Record) bool { return r.Level == level && r.Group == "" })
	if i < 0 {
		return Record{}, false, nil
	}
	return s[i], true, nil
}

func (s raw) each(fn func(Record) error, want func(Record) bool) error {
	for _, r := range s {
		if want(r) {
			if err := fn(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s raw) Each(fn func(Record) error) error {
	return s.each(fn, func(Record) bool { return true })
}

func (s raw) EachIrregular(fn func(Record) error) error {
	return s.each(fn, func(r Record) bool {
		_, err := selinux.ParseLevel(r.Level)
		return err == nil && r.Group == "" && !Regular(r.Level)
	})
}

func (s raw) EachOwn(prefix string, fn func(Record) error) error {
	return s.each(fn, func(r Record) bool { return strings.HasPrefix(r.ID, prefix) })
}

// TestCheck: everything that must not be, and what looks like it and is right.
func TestCheck(t *testing.T) {
	rec := func(id, level string, state State) Record { return Record{ID: id, Level: level, State: state} }
	member := func(id, level, group string) Record {
		return Record{ID: id, Level: level, State: Bound, Group: group}
	}
	group := func(name, level string, n int) Record {
		return Record{ID: groupPrefix + name, Level: level, State: Bound, Members: n}
	}
	for _, tt := range []struct {
		name     string
		records  []Record
		observed []Observation
		want     []string // holders, and a word of the message
	}{
		{"nothing", nil, nil, nil},
		{"all right", []Record{rec("a", "s0:c1,c2", Bound), rec("b", "s0:c1,c3", Reserved), member("c", "s0:c5,c6", "g"), member("d", "s0:c5,c6", "g"), group("g", "s0:c5,c6", 2)}, nil, nil},
		{"no level", []Record{rec("a", "x", Bound), rec("b", "s0:c1,c3", Bound)}, nil, []string{"a: canonical"}},
		{"not canonical", []Record{rec("a", "s0:c2,c1", Bound)}, nil, []string{"a: canonical"}},
		{"two holders", []Record{rec("a", "s0:c1,c2", Bound), rec("b", "s0:c1,c2", Reserved)}, nil, []string{"a b: two holders"}},
		{"no group", []Record{member("a", "s0:c1,c2", "g")}, nil, []string{"a: not the group's label"}},
		{"not the group's", []Record{member("a", "s0:c1,c2", "g"), group("g", "s0:c3,c4", 1)}, nil, []string{"a: not the group's label"}},
		{"counts wrong", []Record{member("a", "s0:c1,c2", "g"), group("g", "s0:c1,c2", 2)}, nil, []string{"shared:g: of 1 counts 2"}},
		{"counts nobody", []Record{group("g", "s0:c1,c2", 0)}, nil, nil},
		{"a name like a group's", []Record{rec("xshared:g", "s0:c1,c2", Bound)}, nil, nil},
		{"dominates a pair", []Record{rec("a", "s0:c1.c3", Bound), rec("b", "s0:c1,c3", Bound)}, nil, []string{"a b: kept apart"}},
		{"dominated by a pair", []Record{rec("a", "s0:c7", Bound), rec("b", "s0:c3,c7", Bound), rec("c", "s0:c7,c9", Bound)}, nil, []string{"a b: kept apart", "a c: kept apart"}},
		{"dominates a triple", []Record{rec("a", "s0:c1.c3", Bound), rec("b", "s0:c0.c3", Bound)}, nil, []string{"a b: kept apart"}},
		{"apart", []Record{rec("a", "s0:c1.c3", Bound), rec("b", "s0:c4.c6", Bound), rec("c", "s0:c4,c7", Bound)}, nil, nil},
		{"one rests", []Record{rec("a", "s0:c1.c3", Quarantine), rec("b", "s0:c0.c3", Bound), rec("c", "s0:c1,c3", Quarantine)}, nil, nil},
		{"the other rests", []Record{rec("a", "s0:c0.c3", Bound), rec("b", "s0:c1.c3", Quarantine)}, nil, nil},
		{"pair at a higher sensitivity", []Record{rec("a", "s1:c1,c2", Bound), rec("b", "s0:c1,c2", Bound)}, nil, []string{"a b: kept apart"}},

		{"seen as ours", []Record{rec("a", "s0:c1,c2", Bound)}, []Observation{{"docker", "a", "s0:c1,c2"}}, nil},
		{"seen with another", []Record{rec("a", "s0:c1,c2", Bound)}, []Observation{{"docker", "b", "s0:c1,c2"}}, []string{"a docker:b: not kept apart"}},
		{"seen twice", []Record{rec("a", "s0:c1,c2", Bound)}, []Observation{{"docker", "b", "s0:c1,c2"}, {"docker", "b", "s0:c1,c2"}}, []string{"a docker:b: not kept apart"}},
		{"in order", []Record{rec("a", "s0:c1,c2", Bound)}, []Observation{{"podman", "b", "s0:c1,c2"}, {"docker", "c", "s0:c1,c2"}}, []string{"a docker:c: not kept apart", "a podman:b: not kept apart"}},
		{"a process of it", []Record{rec("a", "s0:c1,c2", Bound)}, []Observation{{"process", "42", "s0:c1,c2"}}, nil},
		{"content of it", []Record{rec("a", "s0:c1,c2", Bound)}, []Observation{{"content", "/x", "s0:c1,c2"}}, nil},
		{"a process above it", []Record{rec("a", "s0:c1,c2", Bound)}, []Observation{{"process", "42", "s0:c1.c3"}}, []string{"a process:42: not kept apart"}},
		{"content below it", []Record{rec("a", "s0:c1.c3", Bound)}, []Observation{{"content", "/x", "s0:c1,c2"}}, []string{"a content:/x: not kept apart"}},
		{"one that rests", []Record{rec("a", "s0:c1,c2", Quarantine)}, []Observation{{"docker", "b", "s0:c1,c2"}}, nil},
		{"a foreign one, seen elsewhere", []Record{rec("foreign:docker:b", "s0:c1,c2", Foreign)}, []Observation{{"podman", "b", "s0:c1,c2"}}, nil},
		{"a foreign one of another", []Record{rec("foreign:docker:ab", "s0:c1,c2", Foreign)}, []Observation{{"podman", "b", "s0:c1,c2"}}, []string{"foreign:docker:ab podman:b: not kept apart"}},
		{"a name like a foreign one's", []Record{rec("x:b", "s0:c1,c2", Bound)}, []Observation{{"podman", "b", "s0:c1,c2"}}, []string{"x:b podman:b: not kept apart"}},
		{"a member", []Record{member("a", "s0:c1,c2", "g"), group("g", "s0:c1,c2", 1)}, []Observation{{"docker", "a", "s0:c1,c2"}}, nil},
		{"a member of another group", []Record{member("a", "s0:c1,c2", "g"), group("g", "s0:c1,c2", 1), group("h", "s0:c3,c4", 0)}, []Observation{{"docker", "a", "s0:c3,c4"}}, []string{"shared:h docker:a: not kept apart"}},
		{"above a pair", []Record{rec("a", "s0:c1,c2", Bound)}, []Observation{{"docker", "b", "s0:c1.c3"}}, []string{"a docker:b: not kept apart"}},
		{"above its own pair", []Record{rec("b", "s0:c1,c2", Bound)}, []Observation{{"docker", "b", "s0:c1.c3"}}, nil},
		{"below a triple", []Record{rec("a", "s0:c1.c3", Bound)}, []Observation{{"docker", "b", "s0:c1,c2"}}, []string{"a docker:b: not kept apart"}},
		{"below its own triple", []Record{rec("b", "s0:c1.c3", Bound)}, []Observation{{"docker", "b", "s0:c1,c2"}}, nil},
		{"beside a triple", []Record{rec("a", "s0:c1.c3", Bound)}, []Observation{{"docker", "b", "s0:c1,c4"}}, nil},
		{"a range", []Record{rec("a", "s0:c1,c2", Bound)}, []Observation{{"process", "1", "s0-s0:c0.c1023"}}, nil},
		{"no categories", []Record{rec("a", "s0:c1,c2", Bound)}, []Observation{{"process", "1", "s0"}}, nil},
		{"no level seen", []Record{rec("a", "s0:c1,c2", Bound)}, []Observation{{"process", "1", "x"}}, nil},
	} {
		v, err := (&Registry{Store: raw(tt.records), Categories: 16}).Check(tt.observed)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		ok := len(v) == len(tt.want)
		for i := range v {
			if !ok {
				break
			}
			holders, word, _ := strings.Cut(tt.want[i], ": ")
			ok = strings.Join(v[i].Holders, " ") == holders && strings.Contains(v[i].Message, word) && v[i].Level != ""
		}
		if !ok {
			t.Errorf("%s: %+v, want %q", tt.name, v, tt.want)
		}
	}
}

// TestReconcileEdges: what is adopted, and what is gone.
func TestReconcileEdges(t *testing.T) {
	e := newEdge(t,
		Record{ID: "web", Level: "s0:c1,c2", State: Bound},
		Record{ID: "quarantine:s0:c3,c4", Level: "s0:c3,c4", State: Quarantine},
		Record{ID: "foreign:docker:b", Level: "s0:c5,c6", State: Foreign},
		Record{ID: "foreign:docker:a", Level: "s0:c7,c8", State: Foreign},
		Record{ID: "foreign:docker:stays", Level: "s0:c9,c10", State: Foreign},
	)
	e.clock = start.Add(time.Second)
	rep, err := e.Reconcile([]Observation{
		{"podman", "z", "s0:c13,c14"},
		{"docker", "web", "s0:c1,c2"},
		{"docker", "stays", "s0:c9,c10"},
		{"docker", "rests", "s0:c3,c4"},
		{"crio", "rests", "s0:c3,c4"},
		{"docker", "y", "s0:c11,c12"},
	})
	if err != nil || len(rep.Violations) != 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	var adopted, gone []string
	for _, r := range rep.Adopted {
		adopted = append(adopted, spell(r))
	}
	for _, r := range rep.Gone {
		gone = append(gone, r.ID)
	}
	if want := []string{"foreign:crio:rests s0:c3,c4 foreign holder=crio +1s", "foreign:docker:y s0:c11,c12 foreign holder=docker +1s", "foreign:podman:z s0:c13,c14 foreign holder=podman +1s"}; !slices.Equal(adopted, want) {
		t.Errorf("adopted %q, want %q", adopted, want)
	}
	if want := []string{"foreign:docker:a", "foreign:docker:b"}; !slices.Equal(gone, want) {
		t.Errorf("gone %q, want %q", gone, want)
	}
	e.want("reconciled",
		"foreign:crio:rests s0:c3,c4 foreign holder=crio +1s",
		"foreign:docker:stays s0:c9,c10 foreign",
		"foreign:docker:y s0:c11,c12 foreign holder=docker +1s",
		"foreign:podman:z s0:c13,c14 foreign holder=podman +1s",
		"quarantine:s0:c5,c6 s0:c5,c6 quarantine last=foreign:docker:b +1s",
		"quarantine:s0:c7,c8 s0:c7,c8 quarantine last=foreign:docker:a +1s",
		"web s0:c1,c2 bound",
	)
	// A second run is the same as one, and fills no old report.
	if rep, err := e.Reconcile([]Observation{{"podman", "z", "s0:c13,c14"}, {"docker", "stays", "s0:c9,c10"}, {"docker", "y", "s0:c11,c12"}, {"crio", "rests", "s0:c3,c4"}}); err != nil || len(rep.Adopted)+len(rep.Gone)+len(rep.Violations) != 0 {
		t.Errorf("again: %+v, %v", rep, err)
	}
	// Ours under its own name is not adopted, even where another level of it is seen.
	e = newEdge(t, Record{ID: "m", Level: "s0:c1,c2", State: Bound, Group: "g"})
	if rep, err := e.Reconcile([]Observation{{"docker", "m", "s0:c1,c2"}}); err != nil || len(rep.Adopted) != 0 {
		t.Errorf("a member: %+v, %v", rep, err)
	}
	e = newEdge(t, Record{ID: "m", Level: "s0:c1,c2", State: Bound})
	if rep, err := e.Reconcile([]Observation{{"docker", "m", "s0:c3,c4"}}); err != nil || len(rep.Adopted) != 1 {
		t.Errorf("another level of ours: %+v, %v", rep, err)
	}
}

// twice runs each transaction twice, of which only the second counts.
type twice struct{ *Memory }

func (s twice) Update(fn func(Tx) error) error {
	_ = s.Memory.Update(func(tx Tx) error { _ = fn(tx); return errBoom })
	return s.Memory.Update(fn)
}

func (s twice) View(fn func(Tx) error) error { return s.Update(fn) }

// TestTwice: a store may run a transaction more than once.
func TestTwice(t *testing.T) {
	e := newEdge(t, Record{ID: "a", Level: "s0:c1,c2", State: Bound}, Record{ID: "foreign:x:y", Level: "s0:c3,c4", State: Foreign})
	r := &Registry{Store: twice{e.memory}, Now: e.Now}
	if list, err := r.List(); err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	if rep, err := r.Reconcile([]Observation{{"docker", "d", "s0:c5,c6"}}); err != nil || len(rep.Adopted) != 1 || len(rep.Gone) != 1 {
		t.Errorf("%+v, %v", rep, err)
	}
	if v, err := r.Check([]Observation{{"docker", "x", "s0:c1,c2"}}); err != nil || len(v) != 1 {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestRegular: which levels can only conflict with themselves.
func TestRegular(t *testing.T) {
	for level, want := range map[string]bool{
		"s0:c1,c2": true, "s0:c0,c1023": true, "s0:c2,c1": false, "s0:c1,c1": false, "s0:c1": false, "s0:c1,c2,c3": false, "s0:c1.c3": false,
		"s1:c1,c2": false, "s0": false, "": false, "s0:cx,c2": false, "s0:c1,cx": false, "s0:c1,2": false, "s0:1,c2": false,
	} {
		if Regular(level) != want {
			t.Errorf("%s: regular is %v", level, !want)
		}
	}
}

// TestDice: numbers below n, each as often as the others, whatever lies above the
// largest multiple of n.
func TestDice(t *testing.T) {
	bytesOf := func(vs ...uint32) io.Reader {
		var b []byte
		for _, v := range vs {
			b = append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
		}
		return bytes.NewReader(append(b, make([]byte, (64-len(b)%64)%64)...))
	}
	const top = 1<<32 - 1
	for _, tt := range []struct {
		n    int
		vs   []uint32
		want []int
	}{
		{10, []uint32{0, 9, 10, 19, 0x01020304}, []int{0, 9, 0, 9, 0x01020304 % 10}},
		// 2^32-1 = 10*429496729 + 5
		{10, []uint32{top - 6, top - 5, top - 1, top, 3}, []int{9, 3}},
		{1, []uint32{7, top - 1, 5}, []int{0, 0, 0}},
		{3, []uint32{top - 1, top, 4}, []int{2, 1}},
	} {
		d := newDice(bytesOf(tt.vs...), tt.n)
		for i, want := range tt.want {
			if got, err := d.roll(); err != nil || got != want {
				t.Errorf("below %d, roll %d: %d, %v; want %d", tt.n, i, got, err, want)
			}
		}
	}
	if _, err := newDice(nil, 0).roll(); !errors.Is(err, errDice) {
		t.Errorf("of nothing: %v", err)
	}
	if _, err := newDice(bytes.NewReader(make([]byte, 63)), 2).roll(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a source that ends: %v", err)
	}
	// A whole buffer is used before the next is read.
	d := newDice(bytesOf(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17), 100)
	for i := 1; i <= 17; i++ {
		if got, err := d.roll(); err != nil || got != i {
			t.Errorf("roll %d: %d, %v", i, got, err)
		}
	}
	if got, err := newDice(nil, 5).roll(); err != nil || got < 0 || got > 4 {
		t.Errorf("%d, %v", got, err)
	}
}

// TestDrawEdges: the ends of what can be drawn.
func TestDrawEdges(t *testing.T) {
	for _, n := range []int{1, -1} {
		e := newEdge(t)
		e.Categories = n
		if _, err := e.Reserve(Claim{ID: "x"}); !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "no pairs") {
			t.Errorf("%d categories: %v", n, err)
		}
	}
	e := newEdge(t)
	e.Categories = 2
	for id, want := range map[string]string{"a": "s0:c0,c1"} {
		if rec, err := e.Reserve(Claim{ID: id}); err != nil || rec.Level != want {
			t.Errorf("%s: %+v, %v", id, rec, err)
		}
	}
	if _, err := e.Reserve(Claim{ID: "b"}); !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "1 pairs of 2 categories") {
		t.Errorf("none left: %v", err)
	}
	// What another holder has at a sensitivity conflicts with the same pair below and above.
	for _, level := range []string{"s1:c0,c1", "s0:c0", "s0:c0.c5"} {
		e := newEdge(t, Record{ID: "o", Level: level, State: Bound})
		e.Categories, e.Rand = 3, zeros{}
		rec, err := e.Reserve(Claim{ID: "x"})
		if level == "s0:c0.c5" {
			if !errors.Is(err, ErrExhausted) {
				t.Errorf("beside %s: %+v, %v", level, rec, err)
			}
			continue
		}
		if want := map[string]string{"s1:c0,c1": "s0:c0,c2", "s0:c0": "s0:c1,c2"}[level]; err != nil || rec.Level != want {
			t.Errorf("beside %s: %+v, %v, want %s", level, rec, err, want)
		}
	}
	e = newEdge(t, Record{ID: "o", Level: "s0:c0,c1", State: Bound})
	e.Rand = zeros{}
	e.Categories = 3
	if rec, err := e.Reserve(Claim{ID: "x", Sensitivity: "s1"}); err != nil || rec.Level != "s1:c0,c2" {
		t.Errorf("above a pair that is held: %+v, %v", rec, err)
	}
	// Rested ones are cleared away, in the draw and when counted out.
	for _, random := range []io.Reader{zeros{}, nil} {
		e = newEdge(t, Record{ID: "quarantine:s0:c0,c1", Level: "s0:c0,c1", State: Quarantine, Since: start.Add(-time.Hour)})
		e.Categories, e.Rand = 2, random
		if _, err := e.Reserve(Claim{ID: "x"}); err != nil {
			t.Error(err)
		}
		e.want("a rested one", "x s0:c0,c1 reserved")
	}
	if _, err := (&Registry{Store: &Memory{}, Rand: bytes.NewReader(nil)}).Reserve(Claim{ID: "x"}); !errors.Is(err, io.EOF) {
		t.Errorf("no randomness: %v", err)
	}
}

// TestPairsEdges: the index of pairs at its ends, and taken back.
func TestPairsEdges(t *testing.T) {
	var p Pairs
	level := func(i, j int) string { return fmt.Sprintf("s0:c%d,c%d", i, j) }
	for _, ij := range [][2]int{{0, 1}, {0, 2}, {1, 2}, {5, 8}, {0, 4095}, {4094, 4095}} {
		i, j := ij[0], ij[1]
		if got := p.Pair(i, j); got != PairFree {
			t.Errorf("%v: %v before", ij, got)
		}
		p.Put(Record{Level: level(i, j), State: Bound})
		if got := p.Pair(i, j); got != PairHeld {
			t.Errorf("%v: %v when held", ij, got)
		}
		p.Put(Record{Level: level(i, j), State: Quarantine})
		if got := p.Pair(i, j); got != PairRests {
			t.Errorf("%v: %v when it rests", ij, got)
		}
	}
	p.Commit()
	p.Delete(Record{Level: level(0, 1)})
	p.Put(Record{Level: level(0, 2), State: Bound})
	p.Put(Record{Level: level(3, 4), State: Bound})
	p.Delete(Record{Level: level(3, 4), State: Bound})
	p.Put(Record{Level: level(3, 4), State: Bound})
	p.Rollback()
	for ij, want := range map[[2]int]PairState{{0, 1}: PairRests, {0, 2}: PairRests, {3, 4}: PairFree, {1, 2}: PairRests, {4094, 4095}: PairRests} {
		if got := p.Pair(ij[0], ij[1]); got != want {
			t.Errorf("%v: %v after taking back, want %v", ij, got, want)
		}
	}
	p.Delete(Record{Level: level(0, 1)})
	p.Commit()
	p.Rollback()
	if got := p.Pair(0, 1); got != PairFree {
		t.Errorf("taken back behind a commit: %v", got)
	}
	if got := p.Pair(0, 4096); got != PairUnknown {
		t.Errorf("beyond the index: %v", got)
	}
	words := len(p.words)
	p.Put(Record{Level: level(0, 4096), State: Bound})
	p.Put(Record{Level: level(6, 7), State: Bound, Group: "g"})
	p.Put(Record{Level: "s0:c6.c8", State: Bound})
	if len(p.words) != words || p.Pair(6, 7) != PairFree {
		t.Error("what is no pair of its own is in the index")
	}
	// Neighbours in one word, and in the next, do not disturb each other.
	var q Pairs
	state := func(k int) PairState { return PairState(k % 3) }
	for k := range 200 {
		i, j := pair(k)
		switch state(k) {
		case PairHeld:
			q.Put(Record{Level: level(i, j), State: Bound})
		case PairRests:
			q.Put(Record{Level: level(i, j), State: Quarantine})
		}
	}
	for k := range 200 {
		i, j := pair(k)
		if got := q.Pair(i, j); got != state(k) {
			t.Errorf("pair %d: %v, want %v", k, got, state(k))
		}
	}
	for _, k := range []int{0, 1, 2, 3, 5, 6, 523775, 523776, 2147450879} {
		i, j := pair(k)
		if i < 0 || i >= j || pairNumber(i, j) != k {
			t.Errorf("pair %d is %d,%d", k, i, j)
		}
	}
}
