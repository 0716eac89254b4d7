// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package shim

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/palisade-sec/palisade/shield/sealfs"
)

// evilProcess is testdata/evilscript.c: the shim's file shield in a process of its own,
// under a host that does what the script says.
type evilProcess struct {
	in  io.WriteCloser
	out *bufio.Reader
	cmd *exec.Cmd
}

var theEvil struct {
	sync.Mutex
	p *evilProcess
}

// scripted gives the process of this test binary. It ends with its standard input.
func scripted(tb testing.TB) *evilProcess {
	theEvil.Lock()
	defer theEvil.Unlock()
	if theEvil.p == nil {
		p := &evilProcess{cmd: exec.Command(evilHost(tb, "evilscript.c"))}
		p.cmd.Stderr = os.Stderr
		var err error
		if p.in, err = p.cmd.StdinPipe(); err != nil {
			tb.Fatal(err)
		}
		out, err := p.cmd.StdoutPipe()
		if err != nil {
			tb.Fatal(err)
		}
		p.out = bufio.NewReaderSize(out, 1<<20)
		if err := p.cmd.Start(); err != nil {
			tb.Fatal(err)
		}
		theEvil.p = p
	}
	return theEvil.p
}

func (p *evilProcess) ask(tb testing.TB, cmd byte, payload ...[]byte) []byte {
	tb.Helper()
	b := bytes.Join(payload, nil)
	msg := append(binary.LittleEndian.AppendUint32([]byte{cmd}, uint32(len(b))), b...)
	_, err := p.in.Write(msg)
	var n [4]byte
	if err == nil {
		_, err = io.ReadFull(p.out, n[:])
	}
	out := make([]byte, binary.LittleEndian.Uint32(n[:]))
	if err == nil {
		_, err = io.ReadFull(p.out, out)
	}
	if err != nil {
		theEvil.Lock()
		theEvil.p = nil
		theEvil.Unlock()
		p.in.Close()
		tb.Fatalf("the shim's code ended: %v, %v", err, p.cmd.Wait())
	}
	return out
}

// run gives the results of the calls of a script, behind that of the opening.
func (p *evilProcess) run(tb testing.TB, cmd byte, script []instruction) (out []result) {
	tb.Helper()
	var b []byte
	for _, i := range script {
		b = i.encode(b)
	}
	le := binary.LittleEndian
	for b = p.ask(tb, cmd, b); len(b) >= 20; {
		n := le.Uint32(b[16:])
		out = append(out, result{int64(le.Uint64(b)), int64(le.Uint64(b[8:])), b[20 : 20+n]})
		b = b[20+n:]
	}
	return out
}

// check holds the results to what is true.
func (t *truth) check(tb testing.TB, script []instruction, got []result) {
	tb.Helper()
	if len(got) == 0 {
		tb.Fatal("no answer")
	}
	if got[0].r1 == dead {
		if err := t.step(instruction{}, got[0]); err != nil {
			tb.Fatal(err)
		}
	}
	got = got[1:]
	for k, i := range script {
		if i.op >= opHost {
			continue
		}
		if len(got) == 0 {
			tb.Fatalf("no answer to %d", k)
		}
		if err := t.step(i, got[0]); err != nil {
			tb.Fatalf("instruction %d, %+v (%s %s, offset %d, %d bytes): %v\nresult %d %d %.100q", k, i, i.path(), i.other(), i.off(), i.n(), err, got[0].r1, got[0].r2, got[0].data)
		}
		got = got[1:]
	}
}

var fuzzKey = bytes.Repeat([]byte{0x42}, 32)

// memory is a volume's storage.
type memory []byte

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(*m)) {
		return 0, io.EOF
	}
	n := copy(p, (*m)[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > int64(len(*m)) {
		*m = append(*m, make([]byte, end-int64(len(*m)))...)
	}
	return copy((*m)[off:], p), nil
}

func (m *memory) Size() (int64, error) { return int64(len(*m)), nil }
func (m *memory) Sync() error          { return nil }

// byGo makes the calls of a script by the Go implementation. What it answers to
// mistakes is not the kernel's numbers: success and failure alone are compared.
func byGo(v *sealfs.Volume, i instruction) (r result) {
	path, other := "/"+i.path(), "/"+i.other()
	a := sealfs.Attr{Mode: 0o644}
	fail := func(err error) result {
		if err == nil {
			return result{}
		}
		for _, e := range []struct {
			err error
			nr  syscall.Errno
		}{{fs.ErrNotExist, syscall.ENOENT}, {fs.ErrExist, syscall.EEXIST}, {sealfs.ErrNotDir, syscall.ENOTDIR}, {sealfs.ErrIsDir, syscall.EISDIR}, {sealfs.ErrNotEmpty, syscall.ENOTEMPTY}} {
			if errors.Is(err, e.err) {
				return result{r1: -int64(e.nr)}
			}
		}
		return result{r1: -int64(syscall.EINVAL)}
	}
	write := func(off int64, b []byte) result {
		f, err := v.Open(path)
		if err != nil {
			return fail(err)
		}
		defer f.Close()
		if off < 0 {
			info, err := v.Stat(path)
			if err != nil {
				return fail(err)
			}
			off = info.Size
		}
		n, err := f.WriteAt(b, off)
		if err != nil {
			return fail(err)
		}
		return result{r2: int64(n)}
	}
	switch i.op {
	case opWrite:
		return write(int64(i.off()), i.pattern())
	case opAppend:
		return write(-1, i.pattern())
	case opTruncate:
		return fail(v.Truncate(path, int64(i.off())))
	case opCut:
		return fail(v.Truncate(path, 0))
	case opRename:
		return fail(v.Rename(path, other))
	case opLink:
		return fail(v.Link(path, other))
	case opUnlink, opRmdir:
		return fail(v.Remove(path))
	case opMkdir:
		a.Mode = 0o755
		return fail(v.Mkdir(path, a))
	case opSymlink:
		return fail(v.Symlink("/v"+other, path, a))
	case opCreate:
		f, err := v.Create(path, a)
		if err == nil {
			f.Close()
		}
		return fail(err)
	case opSync:
		_, err := v.Commit()
		return fail(err)
	}
	return result{}
}

// forBoth keeps what both implementations can be asked: no links on the way (the
// mount point is the program's business), no difference between unlink and rmdir.
func forBoth(w *world, i instruction) bool {
	switch i.op {
	case opWrite, opAppend, opTruncate, opCut, opRename, opLink, opUnlink, opRmdir, opMkdir, opSymlink, opCreate:
	case opSync:
		return true
	default:
		return false
	}
	p := w.walk(i.path(), true)
	q := w.walk(i.other(), true)
	if two := i.op == opRename || i.op == opLink; p.links || two && q.links {
		return false
	}
	if p.n != nil && (i.op == opUnlink) != (p.n.kind != 'd') && (i.op == opUnlink || i.op == opRmdir) {
		return false
	}
	return true
}

// agree takes a result in: the model says what it should be.
func agree(tb testing.TB, t *truth, i instruction, r result) {
	tb.Helper()
	w := t.now[0]
	err := w.answer(i)
	if (r.r1 != 0) != (err != 0) {
		tb.Fatalf("%+v (%s %s): %d, and the true answer is %d (%v)", i, i.path(), i.other(), r.r1, -int64(err), err)
	}
	if err == 0 {
		if err := t.step(i, r); err != nil {
			tb.Fatalf("%+v (%s %s): %v", i, i.path(), i.other(), err)
		}
	}
}

// look asks for everything there is.
func look(w *world) (s []instruction) {
	s = append(s, instruction{op: opList, x: 15})
	for x := range evilNames {
		i := instruction{x: byte(x), z: 1}
		for _, op := range []byte{opStat, opReadlink, opList} {
			i.op = op
			s = append(s, i)
		}
		p := w.walk(evilNames[x], true)
		i.op, i.b = opRead, 19999
		if s = append(s, i); p.n != nil {
			for i.a = 19999; int(i.a) < len(p.n.data); i.a += 19999 {
				s = append(s, i)
			}
		}
	}
	return s
}

// lookByGo compares the whole volume with the model.
func lookByGo(tb testing.TB, v *sealfs.Volume, w *world) {
	tb.Helper()
	var at func(path string, n *node)
	at = func(path string, n *node) {
		info, err := v.Lstat("/" + path)
		if err != nil {
			tb.Fatalf("/%s: %v", path, err)
		}
		switch n.kind {
		case 'f':
			b, err := v.ReadFile("/"+path, 1<<20)
			if err != nil || info.Type != sealfs.Regular || !bytes.Equal(b, n.data) {
				tb.Fatalf("/%s: %v, %d bytes for %d, %v", path, info.Type, len(b), len(n.data), err)
			}
		case 'l':
			if to, err := v.Readlink("/" + path); err != nil || to != n.target {
				tb.Fatalf("/%s leads to %q, not %q (%v)", path, to, n.target, err)
			}
		case 'd':
			list, err := v.ReadDir("/" + path)
			if err != nil || len(list) != len(n.kids) {
				tb.Fatalf("/%s has %d entries, not %d (%v)", path, len(list), len(n.kids), err)
			}
			for name, k := range n.kids {
				at(strings.TrimPrefix(path+"/"+name, "/"), k)
			}
		}
	}
	at("", w.root)
}

func emptyVolume(tb testing.TB) *memory {
	tb.Helper()
	m := new(memory)
	v, err := sealfs.Create(m, fuzzKey, sealfs.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := v.Commit(); err != nil {
		tb.Fatal(err)
	}
	v.Close()
	return m
}

func newWorld() *world { return &world{root: newDir(nil)} }

// prelude fills a volume, so that scripts have something to work on from the start.
var prelude = []instruction{
	{op: opMkdir, x: 3},
	{op: opMkdir, x: 6},
	{op: opCreate, x: 0},
	{op: opCreate, x: 4},
	{op: opCreate, x: 7},
	{op: opCreate, x: 1},
	{op: opWrite, x: 0, z: 2, b: 9000},
	{op: opWrite, x: 4, z: 3, a: 590000, b: 5000},
	{op: opWrite, x: 7, z: 5, b: 100},
	{op: opWrite, x: 1, z: 8, b: 4096},
	{op: opSymlink, x: 8, y: 4},
	{op: opLink, x: 0, y: 5},
	{op: opSync},
	{op: opWrite, x: 0, z: 6, a: 100, b: 5000},
	{op: opRename, x: 1, y: 2},
	{op: opSync},
}

// FuzzEvilHost has a script of calls and of what the host does to them: stored bytes
// changed, cut, swapped and put back, results forged, writes lost, misplaced and torn.
// Whatever it does, each answer is true or an error that claims nothing.
func FuzzEvilHost(f *testing.F) {
	var seed []byte
	for _, i := range prelude {
		seed = i.encode(seed)
	}
	reads := func(b []byte) []byte {
		for _, i := range []instruction{
			{op: opRead - 1, x: 0, b: 9000},
			{op: opRead - 1, x: 4, z: 1, a: 590000, b: 9000},
			{op: opList - 1, x: 15},
			{op: opList - 1, x: 3},
			{op: opStat - 1, x: 7},
			{op: opReadlink - 1, x: 8},
			{op: opMap - 1, x: 0, b: 9000},
			{op: opKeep - 1, x: 0},
			{op: opUnlink - 1, x: 0},
			{op: opReadKept - 1, b: 500},
			{op: opWrite - 1, x: 4, z: 9, b: 7000},
			{op: opSync - 1},
			{op: opRead - 1, x: 4, b: 7000},
			{op: opRestart - 1, x: 1},
			{op: opList - 1, x: 15},
			{op: opClock - 1},
			{op: opRestart - 1},
			{op: opRead - 1, x: 4, b: 7000},
		} {
			b = i.encode(b)
		}
		return b
	}
	f.Add(reads(nil))
	for kind := range byte(14) {
		for z := range byte(26) {
			if kind != 8 && z > 3 {
				break
			}
			i := instruction{op: 70 + (kind+14-70%14)%14, x: z, y: z % 8, z: z, a: uint32(z)*77777 + 12288, b: 3}
			f.Add(reads(i.encode(reads(i.encode(nil)))))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 200*instructionSize {
			t.Skip()
		}
		script := append(append([]instruction(nil), prelude...), decodeScript(b)...)
		p := scripted(t)
		p.ask(t, 'V', fuzzKey, *volumeForFuzz())
		newTruth(newWorld()).check(t, script, p.run(t, 'S', script))
	})
}

var volumeForFuzz = sync.OnceValue(func() *memory {
	m := new(memory)
	v, err := sealfs.Create(m, fuzzKey, sealfs.Options{})
	if err == nil {
		_, err = v.Commit()
	}
	if err != nil {
		panic(err) // memory does not fail
	}
	v.Close()
	return m
})

// FuzzVolumesAgree has both implementations work on one volume by turns: what one
// wrote the other reads, and both do what the model says.
func FuzzVolumesAgree(f *testing.F) {
	var seed []byte
	for _, i := range prelude {
		i.op--
		seed = i.encode(seed)
	}
	f.Add(seed)
	f.Add(append(append([]byte(nil), seed...), seed...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 200*instructionSize {
			t.Skip()
		}
		script := decodeScript(b)
		dev := emptyVolume(t)
		model := newTruth(newWorld())
		p := scripted(t)
		for turn := 0; turn < 4; turn++ {
			part := script[len(script)*turn/4 : len(script)*(turn+1)/4]
			v, err := sealfs.Open(dev, fuzzKey, sealfs.Options{})
			if err != nil {
				t.Fatalf("open after turn %d: %v", turn, err)
			}
			lookByGo(t, v, model.now[0])
			if turn%2 == 0 { // Go
				for _, i := range part {
					if forBoth(model.now[0], i) {
						agree(t, model, i, byGo(v, i))
					}
				}
				if _, err := v.Commit(); err != nil {
					t.Fatal(err)
				}
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			p.ask(t, 'V', fuzzKey, *dev)
			if turn%2 == 1 { // C
				var mine []instruction
				w := model.now[0].clone()
				for _, i := range part {
					if forBoth(w, i) {
						mine = append(mine, i)
						_ = w.step(i, result{r1: -int64(w.answer(i)), r2: int64(i.n())})
					}
				}
				mine = append(mine, instruction{op: opRestart, x: 1})
				model.check(t, mine, p.run(t, 'S', mine))
				*dev = p.ask(t, 'G')
				p.ask(t, 'V', fuzzKey, *dev)
			}
			s := look(model.now[0])
			model.check(t, s, p.run(t, 'S', s))
			rep, err := sealfs.Check(dev, fuzzKey, sealfs.Options{}, sealfs.CheckOptions{})
			if err != nil || len(rep.Problems) > 0 {
				t.Fatalf("turn %d: %v %v", turn, err, rep.Problems)
			}
		}
	})
}
