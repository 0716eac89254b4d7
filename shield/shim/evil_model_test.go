// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package shim

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
)

// What testdata/evilscript.c is told, and what is true. The numbers of the operations
// and the names are the same there.

var evilNames = []string{"a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "s", "d/s", "t", "d/e/t"}

const (
	opWrite    = 1
	opRead     = 2
	opStat     = 3
	opTruncate = 4
	opRename   = 5
	opLink     = 6
	opUnlink   = 7
	opMkdir    = 8
	opRmdir    = 9
	opSymlink  = 10
	opReadlink = 11
	opList     = 12
	opSync     = 13
	opAppend   = 14
	opCreate   = 15
	opClock    = 16
	opMap      = 17
	opCut      = 18
	opRestart  = 19
	opKeep     = 20
	opReadKept = 21
	opHost     = 64 // and above: how the host behaves

	dead = -100000
)

type instruction struct {
	op, x, y, z byte
	a, b        uint32
}

const instructionSize = 12

func (i instruction) encode(b []byte) []byte {
	b = append(b, i.op, i.x, i.y, i.z)
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, i.a), i.b)
}

func decodeScript(b []byte) (s []instruction) {
	for ; len(b) >= instructionSize; b = b[instructionSize:] {
		i := instruction{b[0], b[1], b[2], b[3], binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])}
		if i.op >= opHost {
			i.op = opHost + i.op%14
		} else {
			i.op = 1 + i.op%opReadKept
		}
		s = append(s, i)
	}
	return s
}

func (i instruction) path() string {
	if i.op == opList && i.x%16 == 15 {
		return ""
	}
	return evilNames[int(i.x)%len(evilNames)]
}
func (i instruction) other() string { return evilNames[int(i.y)%len(evilNames)] }
func (i instruction) off() int {
	if i.z&1 != 0 {
		return int(i.a % 600000)
	}
	return int(i.a % 30000)
}
func (i instruction) n() int { return int(i.b % 20000) }

func (i instruction) pattern() []byte {
	b := make([]byte, i.n())
	for k := range b {
		p := i.off() + k
		b[k] = byte(int(i.z)*131 + p*7 + (p>>8)*13)
	}
	return b
}

type result struct {
	r1, r2 int64
	data   []byte
}

// node is a file, a directory or a symbolic link. What failed halfway leaves a name or
// a content of which nothing is claimed.
type node struct {
	kind   byte // f, d, l
	data   []byte
	blur   bool
	target string
	kids   map[string]*node
	vague  map[string]bool
	parent *node
}

func newDir(parent *node) *node {
	return &node{kind: 'd', kids: map[string]*node{}, vague: map[string]bool{}, parent: parent}
}

// world is one state that the volume may have.
type world struct {
	root *node
	kept [4]*node
}

func (w *world) clone() *world {
	seen := map[*node]*node{}
	var copyOf func(n *node) *node
	copyOf = func(n *node) *node {
		if n == nil || seen[n] != nil {
			return seen[n]
		}
		c := &node{kind: n.kind, data: bytes.Clone(n.data), blur: n.blur, target: n.target, vague: maps.Clone(n.vague)}
		seen[n] = c
		c.parent = copyOf(n.parent)
		if n.kids != nil {
			c.kids = map[string]*node{}
			for k, v := range n.kids {
				c.kids[k] = copyOf(v)
			}
		}
		return c
	}
	return &world{root: copyOf(w.root)}
}

// place is where a path leads.
type place struct {
	dir          *node
	name         string
	n            *node
	err          syscall.Errno
	vague, links bool
}

func (w *world) walk(path string, follow bool) (p place) {
	todo, links := strings.Split(path, "/"), 0
	p.dir, p.n = w.root.parent, w.root
	if path == "" {
		return p
	}
	at := w.root
	for len(todo) > 0 {
		if at.kind != 'd' {
			p.err = syscall.ENOTDIR
			return p
		}
		name := todo[0]
		todo = todo[1:]
		p.dir, p.name, p.n = at, name, at.kids[name]
		if at.vague[name] {
			p.vague = true
			return p
		}
		if p.n == nil {
			if len(todo) > 0 {
				p.err = syscall.ENOENT
			}
			return p
		}
		if p.n.kind == 'l' && (follow || len(todo) > 0) {
			p.links = true
			if links++; links > 40 {
				p.err = syscall.ELOOP
				return p
			}
			todo = append(strings.Split(strings.TrimPrefix(p.n.target, "/v/"), "/"), todo...)
			at = w.root
			continue
		}
		at = p.n
	}
	return p
}

// harmless are errors that claim nothing about the files.
func harmless(r int64) bool {
	switch syscall.Errno(-r) {
	case syscall.EIO, syscall.ENOSPC, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE:
		return r < 0
	}
	return false
}

// follows says of an operation whether it follows the last link.
func follows(op byte) bool {
	switch op {
	case opStat, opRename, opLink, opUnlink, opMkdir, opRmdir, opSymlink, opReadlink, opCreate:
		return false
	}
	return true
}

// places are where the paths of a call lead.
func (w *world) places(i instruction) (p, q place) {
	p = w.walk(i.path(), follows(i.op))
	if i.op == opRename || i.op == opLink {
		q = w.walk(i.other(), false)
	}
	return p, q
}

// answer is the error that a call truly ends with.
func (w *world) answer(i instruction) syscall.Errno {
	if i.op == opSync || i.op == opClock || i.op == opReadKept {
		return 0
	}
	p, q := w.places(i)
	if p.err != 0 {
		return p.err
	}
	if q.err != 0 {
		return q.err
	}
	return w.refusal(i, p, q)
}

// step takes one call and its result in: whether they are true in this world.
func (w *world) step(i instruction, r result) error {
	p, q := w.places(i)
	if p.vague || q.vague {
		w.unknown(i, r, p, q)
		return nil
	}
	err := w.answer(i)
	if i.op == opReadKept {
		err = 0
		if w.kept[i.y%4] == nil {
			return expect(r.r2, -int64(syscall.EBADF), "read of nothing")
		}
	}
	if i.op == opKeep {
		w.kept[i.y%4] = nil
	}
	if harmless(r.r1) {
		w.failed(i, p, q)
		return nil
	}
	if err := expect(r.r1, -int64(err), "result"); err != nil && (i.op != opReadlink || r.r1 < 0 || p.n == nil || p.n.kind != 'l') {
		return err
	}
	if err != 0 {
		return nil
	}
	return w.succeeded(i, r, p, q)
}

func expect(got, want int64, what string) error {
	if got != want {
		return fmt.Errorf("%s %d, not %d", what, got, want)
	}
	return nil
}

// refusal is the error that is the true answer to a call.
func (w *world) refusal(i instruction, p, q place) syscall.Errno {
	switch i.op {
	case opMkdir, opSymlink, opCreate:
		if p.n != nil {
			return syscall.EEXIST
		}
		return 0
	}
	if p.n == nil {
		return syscall.ENOENT
	}
	dir := p.n.kind == 'd'
	switch i.op {
	case opWrite, opAppend, opCut, opKeep, opTruncate, opUnlink:
		if dir {
			return syscall.EISDIR
		}
	case opList:
		if !dir {
			return syscall.ENOTDIR
		}
	case opReadlink:
		if p.n.kind != 'l' {
			return syscall.EINVAL
		}
	case opRmdir:
		if !dir {
			return syscall.ENOTDIR
		}
		if len(p.n.kids) > 0 {
			return syscall.ENOTEMPTY
		}
	case opLink:
		if q.n != nil {
			return syscall.EEXIST
		}
		if dir {
			return syscall.EPERM
		}
	case opRename:
		switch {
		case q.n == p.n:
		case q.n != nil && dir && q.n.kind != 'd':
			return syscall.ENOTDIR
		case q.n != nil && !dir && q.n.kind == 'd':
			return syscall.EISDIR
		case q.n != nil && q.n.kind == 'd' && len(q.n.kids) > 0:
			return syscall.ENOTEMPTY
		case dir:
			for up := q.dir; up != nil; up = up.parent {
				if up == p.n {
					return syscall.EINVAL
				}
			}
		}
	}
	return 0
}

// failed: names and contents that an error leaves open.
func (w *world) failed(i instruction, p, q place) {
	switch i.op {
	case opRename, opLink:
		if q.dir != nil && q.dir.kind == 'd' && q.err == 0 {
			q.dir.vague[q.name] = true
		}
		fallthrough
	case opUnlink, opMkdir, opRmdir, opSymlink, opCreate:
		if p.dir != nil && p.err == 0 && i.op != opLink {
			p.dir.vague[p.name] = true
		}
	case opTruncate, opCut:
		if p.n != nil {
			p.n.blur = true
		}
	}
}

// unknown takes in a call through a name of which nothing is known.
func (w *world) unknown(i instruction, r result, p, q place) {
	switch i.op {
	case opKeep:
		w.kept[i.y%4] = nil
		if r.r1 == 0 {
			w.kept[i.y%4] = &node{kind: 'f', blur: true}
		}
	case opWrite, opAppend, opTruncate, opCut:
		seen := map[*node]bool{}
		var blur func(n *node)
		blur = func(n *node) {
			if n == nil || seen[n] {
				return
			}
			seen[n] = true
			n.blur = true
			for _, k := range n.kids {
				blur(k)
			}
		}
		blur(w.root)
		for _, k := range w.kept {
			blur(k)
		}
	case opRename, opLink:
		for _, at := range []place{p, q} {
			if at.dir != nil && at.err == 0 && at.name != "" {
				at.dir.vague[at.name] = true
			}
		}
	}
}

func (w *world) succeeded(i instruction, r result, p, q place) error {
	n := p.n
	content := func(n *node, off, size int) []byte {
		off = min(off, len(n.data))
		return n.data[off:min(off+size, len(n.data))]
	}
	resize := func(size int) {
		for len(n.data) < size {
			n.data = append(n.data, make([]byte, size-len(n.data))...)
		}
		n.data = n.data[:size]
	}
	switch i.op {
	case opWrite, opAppend:
		if harmless(r.r2) {
			return nil
		}
		if r.r2 < 0 || r.r2 > int64(i.n()) {
			return fmt.Errorf("wrote %d of %d", r.r2, i.n())
		}
		off := i.off()
		if i.op == opAppend {
			off = len(n.data)
		}
		if end := off + int(r.r2); r.r2 > 0 {
			resize(max(len(n.data), end))
			copy(n.data[off:end], i.pattern())
		}
	case opRead, opReadKept:
		if harmless(r.r2) {
			return nil
		}
		if i.op == opReadKept {
			n = w.kept[i.y%4]
		}
		if n.kind == 'd' {
			return expect(r.r2, -int64(syscall.EISDIR), "read of a directory")
		}
		want := content(n, i.off(), i.n())
		if r.r2 < 0 || !n.blur && (len(r.data) > len(want) || !bytes.Equal(r.data, want[:len(r.data)]) || len(r.data) == 0 && len(want) > 0) {
			return fmt.Errorf("read %d of %d bytes, and they are not true", r.r2, len(want))
		}
	case opMap:
		if e := syscall.Errno(-r.r2); harmless(r.r2) || e == syscall.EEXIST || e == syscall.EINVAL {
			return nil
		}
		if n.kind == 'd' {
			return expect(r.r2, -int64(syscall.ENODEV), "mapping of a directory")
		}
		want := make([]byte, (i.n()+4096)&^4095)
		copy(want, content(n, i.off()&^4095, len(want)))
		if r.r2 < 0 || !n.blur && !bytes.Equal(r.data, want) {
			return fmt.Errorf("mapped (%d), and the content is not true", r.r2)
		}
	case opStat:
		mode, size := binary.LittleEndian.Uint64(r.data), binary.LittleEndian.Uint64(r.data[8:])
		want := map[byte]uint64{'f': 0o100000, 'd': 0o040000, 'l': 0o120000}[n.kind]
		if mode&0o170000 != want || n.kind == 'f' && !n.blur && size != uint64(len(n.data)) || n.kind == 'l' && size != uint64(len(n.target)) {
			return fmt.Errorf("mode %o and size %d of a %c of %d bytes", mode, size, n.kind, len(n.data))
		}
	case opTruncate:
		resize(i.off())
	case opCut:
		n.data, n.blur = nil, false
	case opRename:
		if q.n == n {
			return nil
		}
		delete(p.dir.kids, p.name)
		q.dir.kids[q.name] = n
		if n.kind == 'd' {
			n.parent = q.dir
		}
	case opLink:
		q.dir.kids[q.name] = n
	case opUnlink, opRmdir:
		delete(p.dir.kids, p.name)
	case opMkdir:
		p.dir.kids[p.name] = newDir(p.dir)
	case opSymlink:
		p.dir.kids[p.name] = &node{kind: 'l', target: "/v/" + i.other()}
	case opReadlink:
		if string(r.data) != n.target {
			return fmt.Errorf("link to %q, not %q", r.data, n.target)
		}
	case opCreate:
		p.dir.kids[p.name] = &node{kind: 'f'}
	case opKeep:
		w.kept[i.y%4] = n
	case opList:
		if harmless(r.r2) {
			return nil
		}
		return listed(n, r)
	}
	return nil
}

func listed(n *node, r result) error {
	if r.r2 != 0 {
		return fmt.Errorf("listing ended with %d", r.r2)
	}
	var got, want []string
	for b := r.data; len(b) > 0; {
		name, rest, _ := bytes.Cut(b[1:], []byte{0})
		kind := map[byte]string{8: "f", 4: "d", 10: "l"}[b[0]]
		b = rest
		if s := string(name); s != "." && s != ".." && !n.vague[s] {
			got = append(got, s+" "+kind)
		}
	}
	for name, k := range n.kids {
		if !n.vague[name] {
			want = append(want, name+" "+string(k.kind))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("listed %q, not %q", got, want)
	}
	return nil
}

// truth follows a script: the states that the running program may see, and those that
// the volume may have when it is opened again.
type truth struct {
	now, safe []*world
	clock     int64
}

func newTruth(w *world) *truth { return &truth{now: []*world{w}, safe: []*world{w.clone()}} }

func clones(ws []*world) (out []*world) {
	for _, w := range ws {
		out = append(out, w.clone())
	}
	return out
}

func (t *truth) step(i instruction, r result) error {
	if r.r1 == dead && r.r2 == 0 {
		for line := range strings.Lines(string(r.data)) {
			if !strings.HasPrefix(line, "palisade: error: ") || !strings.HasSuffix(line, "\n") {
				return fmt.Errorf("it ended with %q", r.data)
			}
		}
		if len(r.data) == 0 {
			return fmt.Errorf("it ended without a word")
		}
		if i.op == opSync || i.op == opRestart {
			t.safe = append(t.safe, clones(t.now)...)
		}
		t.now = nil
		return nil
	}
	switch {
	case i.op == opRestart:
		if i.x&1 != 0 && r.r2 == 0 {
			t.safe = t.now
		} else if i.x&1 != 0 {
			t.safe = append(t.safe, t.now...)
		}
		t.now, t.clock = clones(t.safe), 0
		return nil
	case r.r1 == dead: // it had ended before
		return nil
	case i.op == opClock:
		if r.r1 == 0 && r.r2 < t.clock {
			return fmt.Errorf("time went back from %d to %d", t.clock, r.r2)
		}
		t.clock = max(t.clock, r.r2)
		return nil
	case i.op == opSync:
		if r.r1 == 0 && r.r2 == 0 {
			t.safe = clones(t.now)
		} else {
			t.safe = append(t.safe, clones(t.now)...)
		}
		return nil
	}
	var left []*world
	var first error
	for _, w := range t.now {
		if err := w.step(i, r); err == nil {
			left = append(left, w)
		} else if first == nil {
			first = err
		}
	}
	if t.now = left; len(left) == 0 {
		return first
	}
	return nil
}
