// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package shim

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/shield/sealfs"
	"github.com/palisade-sec/palisade/shield/volfile"
)

// seal makes a volume of a folder.
func seal(t *testing.T, dir string, o sealfs.Options) (name string, key []byte) {
	t.Helper()
	key = make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	name = filepath.Join(t.TempDir(), "volume")
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	err = volfile.Create(name, false, func(f *volfile.File) error {
		_, err := sealfs.Seal(f, key, o, sealfs.Source{Entries: volfile.Directory(root), Facts: Facts})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return name, key
}

// fsck holds what the C code wrote to the Go implementation of the format.
func fsck(t *testing.T, name string, key []byte) sealfs.Report {
	t.Helper()
	f, err := volfile.Open(name, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rep, err := sealfs.Check(f, key, sealfs.Options{}, sealfs.CheckOptions{})
	if err != nil {
		t.Fatalf("fsck: %v", err)
	}
	for _, p := range rep.Problems {
		t.Errorf("fsck: inode %d %s: %s", p.Inode, p.Path, p.Text)
	}
	return rep
}

// sampleTree makes files of many shapes.
func sampleTree(t *testing.T) string {
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o755))
	for i := range 200 {
		must(os.WriteFile(filepath.Join(dir, "a", fmt.Sprintf("a-name-that-fills-pages-%d", i)), []byte(strings.Repeat("x", i*37)), 0o644))
	}
	for _, n := range []int{0, 1, 4095, 4096, 4097, 128 * 4096, 128*4096 + 1, 700_000} {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i * 7 >> 3)
		}
		must(os.WriteFile(filepath.Join(dir, fmt.Sprintf("size-%d", n)), b, 0o600))
	}
	must(os.Symlink("a/b", filepath.Join(dir, "link")))
	must(os.Link(filepath.Join(dir, "size-4097"), filepath.Join(dir, "a/hard")))
	must(os.WriteFile(filepath.Join(dir, "secret"), []byte(strings.Repeat("the quick brown secret ", 400)), 0o600))
	return dir
}

// evil builds the shim's file shield with an executor that lies.
func evil(tb testing.TB) string { return evilHost(tb, "evil.c") }

func evilHost(tb testing.TB, name string) string {
	var flags []string
	for _, f := range []string{"vol", "dir", "path", "file", "console", "sys", "str", "aes", "sha256"} {
		flags = append(flags, filepath.Join("src", f+".c"))
	}
	h := sha256.New() // so that a change of those files makes a new binary
	for _, f := range []string{"shim.sum", filepath.Join("testdata", "evilhost.h")} {
		b, err := os.ReadFile(f)
		if err != nil {
			tb.Fatal(err)
		}
		h.Write(b)
	}
	flags = append(flags, "-w", "-fno-strict-aliasing", "-fwrapv", "-maes", "-mpclmul", "-mssse3", "-msse4.1",
		"-DSOURCES_"+hex.EncodeToString(h.Sum(nil)[:8]))
	return oracle.CHelper(tb, filepath.Join("testdata", name), "apt: gcc libc6-dev", flags...)
}

func keyFile(t *testing.T, key []byte) string {
	name := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(name, key, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestConfirmReading: the C code reads what the Go code sealed, byte for byte.
func TestConfirmReading(t *testing.T) {
	dir := sampleTree(t)
	name, key := seal(t, dir, sealfs.Options{})
	out, code := bare(t, dir, evil(t), "dump", name, keyFile(t, key))
	if code != 0 {
		t.Fatal(out)
	}
	var want []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, dir)
		var content []byte
		var hash [32]byte
		typ := uint32(0o040000)
		switch {
		case fi.Mode().IsRegular():
			content, err = os.ReadFile(path)
			hash, typ = sha256.Sum256(content), 0o100000
		case fi.Mode()&fs.ModeSymlink != 0:
			var target string
			target, err = os.Readlink(path)
			content = []byte(target)
			hash, typ = sha256.Sum256(content), 0o120000
		}
		want = append(want, fmt.Sprintf("%s\t%o\t%d\t%x", rel, typ|uint32(fi.Mode().Perm()), len(content), hash))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(out), "\n")
	sort.Strings(want)
	sort.Strings(got)
	// The trimmed first line is the root directory, whose path is empty.
	for i := range got {
		got[i] = strings.TrimPrefix(got[i], "\t")
	}
	for i := range want {
		want[i] = strings.TrimPrefix(want[i], "\t")
	}
	sort.Strings(want)
	sort.Strings(got)
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %d lines, want %d", len(got), len(want))
		for i := 0; i < min(len(got), len(want)); i++ {
			if got[i] != want[i] {
				t.Errorf("got  %s\nwant %s", got[i], want[i])
				break
			}
		}
	}
}

// TestSealedPrograms runs programs on a volume and, for comparison, on a folder.
func TestSealedPrograms(t *testing.T) {
	for _, tt := range []struct{ name, tool, script string }{
		{"shell", "sh", `cd $D; echo one > f; cat f; mkdir d; mv f d/g; cat d/../d/g; ln -s d/g l; cat l; rm -r d; ls -a; pwd | sed "s,$D,D,"; test -e l || echo dangling`},
		{"busybox", "busybox", `busybox cp -r /etc/apt $D/x; cd $D/x; busybox find . | busybox sort; busybox tar cf ../t.tar .; busybox tar tf ../t.tar | busybox wc -l; busybox du -a . | busybox wc -l`},
		{"sqlite3", "sqlite3", `cd $D; sqlite3 x.db "create table t(a integer primary key, b text); with recursive c(x) as (select 1 union all select x+1 from c where x<10000) insert into t select x, hex(x*x) from c; select count(*), sum(length(b)) from t; pragma journal_mode=wal; update t set b='' where a%2; select sum(length(b)) from t; vacuum; pragma integrity_check"`},
		{"python3", "python3", `cd $D; python3 -c '` + pythonFiles + `'`},
		{"perl", "perl", `cd $D; perl -e 'open F, ">>f"; print F "a" x 5000; close F; open F, "+<f"; seek F, 100, 0; print F "b"; close F; print -s "f", "\n"; rename "f", "g"; print join(",", glob("*")), "\n"; truncate "g", 10; print -s "g", "\n"'`},
		{"git", "git", `cd $D; export HOME=$D GIT_AUTHOR_DATE=2020-01-01T00:00:00Z GIT_COMMITTER_DATE=2020-01-01T00:00:00Z; git config --global user.email a@b; git config --global user.name n; git init -q r 2>&1; cd r
			for i in 1 2 3; do seq 1000 > f$i; git add .; git commit -qm c$i; done; git log --oneline | cat; cd ..; git clone -q r s; cd s; git gc -q; git fsck; git checkout -q HEAD~1; echo y > f1; git diff --stat | cat; git stash -q; git stash pop -q; git status --short`},
		{"make and gcc", "gcc", `cd $D; printf '#include <stdio.h>
int f(int);int main(){printf("%%d\\n",f(3));}
' > m.c; echo 'int f(int x){return x*2;}' > f.c; printf 'p: m.o f.o
	gcc -o p m.o f.o
%%.o: %%.c
	gcc -c -o $@ $<
' > Makefile; make -j2 >/dev/null; ./p; gcc -shared -fPIC -o libf.so f.c; gcc m.c -L. -lf -Wl,-rpath,. -o r; ./r`},
		{"tar and gzip", "tar", `cd $D; cp -r /etc/apt a; tar czf a.tgz a; mkdir b; tar xzf a.tgz -C b; diff -r a b/a && echo same; ls`},
		{"sqlite3, two writers with a log", "sqlite3", `cd $D; sqlite3 x.db "pragma journal_mode=wal; create table t(a,b)"; (for i in 1 2 3 4 5; do sqlite3 -cmd ".timeout 20000" x.db "insert into t values($i,1)"; done) & for i in 1 2 3 4 5; do sqlite3 -cmd ".timeout 20000" x.db "insert into t values($i,2)"; done; wait; sqlite3 x.db "select count(*) from t; pragma integrity_check"; ls`},
		{"links to host programs", "python3", `cd $D; mkdir v; ln -s $(command -v python3) v/python; v/python -c "print(1)"; cd v; ./python -c "print(2)"; ln -s python q; ./q -c "print(3)"`},
		{"bash", "bash", `cd $D; cat > s.sh <<'X'
trap 'echo the end' EXIT
coproc cat; echo hi >&${COPROC[1]}; read -r -u ${COPROC[0]} v; echo $v; diff <(seq 5) <(seq 6)
exec 9>lock; flock 9 echo locked; timeout 0.2 sleep 5 || echo timed $?; xargs -n1 -P4 echo < <(seq 3) | sort; sort -S1M -T . -R s.sh | sort | cksum; sed -i s/hi/ho/ s.sh
cp --sparse=always s.sh z; ln s.sh hard; stat -c %h s.sh; touch -d 2020-01-01 z; ls -l --time-style=+%F z | cut -d" " -f6; truncate -s 1M t; dd if=t of=t2 bs=64k oflag=direct 2>/dev/null; cmp t t2 && echo same; split -b 100k t part.; cat part.* | cmp - t && echo whole; readlink -f hard | sed 's,.*/,,'
X
			bash s.sh 2>&1`},
		{"python3, six processes", "python3", `cd $D; cat > a.py <<'X'
import multiprocessing as mp, sqlite3, os, mmap, struct, fcntl
def work(i):
    c = sqlite3.connect("x.db", timeout=60)
    for k in range(5):
        with c: c.execute("insert into t values(?,?)", (i, k))
    fd, a = os.open("count", os.O_RDWR), os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for _ in range(100):
        fcntl.lockf(fd, fcntl.LOCK_EX); n = struct.unpack("q", os.pread(fd, 8, 0))[0]; os.pwrite(fd, struct.pack("q", n + 1), 0); fcntl.lockf(fd, fcntl.LOCK_UN)
        os.write(a, b"line %d\n" % i)
    m = mmap.mmap(os.open("shared", os.O_RDWR), 4096); m[i] = i + 1; m.flush()
    return i
if __name__ == "__main__":
    sqlite3.connect("x.db").execute("create table t(a,b)")
    open("count", "wb").write(bytes(8)); open("shared", "wb").write(bytes(4096))
    with mp.Pool(6) as p: print(sorted(p.map(work, range(6))))
    print(sqlite3.connect("x.db").execute("select count(*) from t").fetchone(), struct.unpack("q", open("count", "rb").read()), len(open("log").readlines()), open("shared", "rb").read(8))
X
			python3 a.py`},
		{"script in the volume", "sh", `cd $D; printf '#!/bin/sh\necho $0 "$@"\n' > s; chmod 755 s; ./s a b; chmod 644 s; ./s; cp /bin/echo e; ./e copied; exec ./e last`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			oracle.Tool(t, tt.tool, "apt: "+map[string]string{"busybox": "busybox-static"}[tt.tool]+" "+tt.tool)
			plain, empty := t.TempDir(), t.TempDir()
			want, code := bare(t, plain, "/bin/sh", "-c", "D="+plain+"; "+tt.script)
			name, key := seal(t, empty, sealfs.Options{})
			got, res := shielded(t, Config{Volume: name, Mount: "/sealed", Key: key}, "/bin/sh", "-c", "D=/sealed; "+tt.script)
			if got != want || res.Code != code {
				t.Errorf("exit %d, want %d\n--- shielded\n%.3000s\n--- bare\n%.3000s", res.Code, code, got, want)
			}
			fsck(t, name, key)
		})
	}
}

const pythonFiles = `
import os, mmap, fcntl, random, hashlib, shutil, subprocess
random.seed(1)
for i in range(200):
    with open("f%03d" % i, "wb") as f: f.write(random.randbytes(random.randrange(20000)))
os.makedirs("a/b/c")
for i in range(0, 200, 3): os.rename("f%03d" % i, "a/b/g%d" % i)
for i in range(1, 200, 3): os.unlink("f%03d" % i)
with open("big", "wb") as f:
    f.seek(3000000); f.write(b"end"); f.seek(100); f.write(b"start" * 1000); f.truncate(2500000)
f = open("big", "r+b")
m = mmap.mmap(f.fileno(), 8192); m[0:5] = b"MMAPD"; m.flush(); print(f.read(10)); m.close()
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE); print(m[0:5]); m.close()
fcntl.lockf(f, fcntl.LOCK_EX); fcntl.flock(f, fcntl.LOCK_EX)
g = open("ap", "ab"); h = open("ap", "ab")
for x in (g, h, g): x.write(b"1"); x.flush()
print(open("ap").read())
if os.fork() == 0:
    open("child", "w").write("from child"); os._exit(0)
os.wait(); print(open("child").read())
shutil.copytree("a", "copy"); shutil.copyfile("big", "big2")
os.link("ap", "hard"); print(os.stat("ap").st_nlink)
for s in ["x" * 256, "nodir/x"]:
    try: open(s, "w")
    except OSError as e: print(e.errno)
h = hashlib.sha256()
for r, ds, fs in os.walk("."):
    ds.sort()
    for n in sorted(fs): h.update((r + n).encode() + open(os.path.join(r, n), "rb").read())
print(h.hexdigest())
print(subprocess.run("ls | wc -l; cat < ap; cat /dev/stdin < ap; find . | sort | md5sum", shell=True, capture_output=True).stdout)
`

// TestNoPlaintext searches the volume for what the program wrote and was given.
func TestNoPlaintext(t *testing.T) {
	dir := sampleTree(t)
	name, key := seal(t, dir, sealfs.Options{})
	_, res := shielded(t, Config{Volume: name, Mount: "/sealed", Key: key}, "/bin/sh", "-c",
		`for i in 1 2 3 4 5 6 7 8 9; do echo "written under the shield" >> /sealed/out-of-sight; done; sync`)
	if res.Code != 0 || res.Generation < 2 {
		t.Fatalf("%+v", res)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"quick brown secret", "written under", "out-of-sight", "a-name-that-fills", "size-4096", "PSITES1"} {
		if bytes.Contains(b, []byte(s)) {
			t.Errorf("the volume contains %q", s)
		}
	}
	fsck(t, name, key)
}

func TestBadVolumes(t *testing.T) {
	dir := sampleTree(t)
	name, key := seal(t, dir, sealfs.Options{})
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Repeat([]byte{7}, 32)
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 1; return b }
	}
	for _, tt := range []struct {
		name, want string
		c          Config
		change     func([]byte) []byte
	}{
		{"wrong key", "the key is not the volume's", Config{Key: other}, nil},
		{"old generation", "older than the generation", Config{Key: key, MinGeneration: 2}, nil},
		{"not a volume", "not a sealed volume", Config{Key: key}, flip(0)},
		{"header", "header is damaged", Config{Key: key}, flip(100)},
		{"roots", "no valid root", Config{Key: key}, func(b []byte) []byte { b[4096+60] ^= 1; b[8192+60] ^= 1; return b }},
		{"cut short", "too short", Config{Key: key}, func(b []byte) []byte { return b[:len(b)/2] }},
		{"a damaged node", "damaged", Config{Key: key}, func(b []byte) []byte { b[len(b)-100] ^= 1; return b }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := bytes.Clone(good)
			if tt.change != nil {
				b = tt.change(b)
			}
			tt.c.Volume, tt.c.Mount = filepath.Join(t.TempDir(), "v"), "/sealed"
			if err := os.WriteFile(tt.c.Volume, b, 0o600); err != nil {
				t.Fatal(err)
			}
			out, res := shielded(t, tt.c, "/bin/ls", "-R", "/sealed")
			if !strings.Contains(out, "palisade: error: ") || !strings.Contains(out, tt.want) || strings.Count(out, "palisade: error") != 1 || res.Code != 125 {
				t.Errorf("exit %d: %s", res.Code, out)
			}
			after, err := os.ReadFile(tt.c.Volume)
			if err != nil || !bytes.Equal(after, b) {
				t.Error("the volume was written to")
			}
		})
	}
}

// TestDiskFull: a full disk under the volume is an error to the program, and what
// was committed before stays.
func TestDiskFull(t *testing.T) {
	oracle.Root(t, "mounting a small file system needs root")
	small := t.TempDir()
	if out, code := bare(t, small, "mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small); code != 0 {
		t.Skipf("cannot mount a small file system: %s", out)
	}
	defer func() {
		if out, code := bare(t, "/", "umount", small); code != 0 {
			t.Errorf("umount: %s", out)
		}
	}()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "kept"), []byte("kept\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	first, key := seal(t, dir, sealfs.Options{})
	b, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(small, "v")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, res := shielded(t, Config{Volume: name, Mount: "/sealed", Key: key}, "/bin/sh", "-c",
		`cat /sealed/kept; dd if=/dev/zero of=/sealed/big bs=64k count=100 conv=fsync 2>&1 | grep -o "No space left on device"; cat /sealed/kept`)
	if !strings.HasPrefix(out, "kept\nNo space left on device\nkept\n") || res.Code != 125 || !strings.Contains(out, "palisade: error: the last changes could not be written") {
		t.Errorf("exit %d: %s", res.Code, out)
	}
	fsck(t, name, key)
}

// evilRuns are short forms of make shield-evil.
func evilRun(t *testing.T, mode string, args ...string) {
	t.Helper()
	dir := sampleTree(t)
	name, key := seal(t, dir, sealfs.Options{})
	out, code := bare(t, dir, append([]string{evil(t), mode, name, keyFile(t, key)}, args...)...)
	if code != 0 {
		t.Fatalf("exit %d: %.2000s", code, out)
	}
	t.Log(strings.TrimSpace(out))
}

func scale(name, small string) string {
	if s := os.Getenv(name); s != "" {
		return s
	}
	return small
}

func TestEvilResults(t *testing.T) {
	evilRun(t, "hostile", scale("SHIELD_EVIL_SEED", "1"), scale("SHIELD_EVIL_RESULTS", "30000"))
}

func TestEvilVolumes(t *testing.T) {
	evilRun(t, "corrupt", scale("SHIELD_EVIL_SEED", "1"), scale("SHIELD_EVIL_VOLUMES", "400"))
}

func TestEvilClock(t *testing.T) { evilRun(t, "time") }

// TestCrashAtEveryWrite stops at every write of a workload, and in the middle of
// it; the Go implementation looks at every eighth of the volumes that are left.
func TestCrashAtEveryWrite(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "first"), []byte("first\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	name, key := seal(t, dir, sealfs.Options{})
	images := t.TempDir()
	out, code := bare(t, dir, evil(t), "crash", name, keyFile(t, key), scale("SHIELD_EVIL_SEED", "1"), images)
	if code != 0 {
		t.Fatalf("exit %d: %.2000s", code, out)
	}
	t.Log(strings.TrimSpace(out))
	left, err := filepath.Glob(filepath.Join(images, "*"))
	if err != nil || len(left) == 0 {
		t.Fatalf("no images: %v", err)
	}
	for _, f := range left {
		fsck(t, f, key)
	}
}

// TestConsole: nothing that is written to the standard streams leaves in the clear,
// by descriptors however made, and the stream shows each change.
func TestConsole(t *testing.T) {
	name, key := seal(t, t.TempDir(), sealfs.Options{})
	console := bytes.Repeat([]byte{9}, 32)
	c := Config{Volume: name, Mount: "/sealed", Key: key, ConsoleKey: console}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Program, c.Env, c.Stdout, c.Dir = "/bin/sh", os.Environ(), w, "/"
	c.Args = []string{"sh", "-c", `echo visible-one; exec 5>&1; echo visible-two >&5; (echo visible-three; ls /sealed) ; echo visible-four > /dev/stdout; cat /proc/self/comm`}
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(r) // ends with the last writer
		got <- b
	}()
	res, err := Run(c)
	w.Close()
	box := <-got
	if err != nil || res.Code != 0 {
		t.Fatalf("%+v %v", res, err)
	}
	if bytes.Contains(box, []byte("visible")) {
		t.Error("the stream is in the clear")
	}
	var plain bytes.Buffer
	if err := OpenConsole(&plain, bytes.NewReader(box), console); err != nil {
		t.Fatal(err)
	}
	if want := "visible-one\nvisible-two\nvisible-three\nvisible-four\ncat\n"; plain.String() != want {
		t.Errorf("got %q, want %q", plain.String(), want)
	}
	second := 64 + int(box[8])
	for what, b := range map[string][]byte{
		"changed": append(append([]byte(nil), box[:70]...), append([]byte{box[70] ^ 1}, box[71:]...)...), "first block missing": box[second:],
		"repeated": append(append([]byte(nil), box[:second]...), box...), "other key": box,
	} {
		k := console
		if what == "other key" {
			k = key
		}
		if err := OpenConsole(io.Discard, bytes.NewReader(b), k); !errors.Is(err, ErrConsole) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, n := range []int{0, 30, second, len(box) - 64, len(box) - 1} {
		if err := OpenConsole(io.Discard, bytes.NewReader(box[:n]), console); !errors.Is(err, ErrConsoleCut) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

func FuzzOpenConsole(f *testing.F) {
	f.Add([]byte("PCB1"))
	f.Add(append([]byte("PCB1\x01\x01\x00\x00"), make([]byte, 56)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if OpenConsole(io.Discard, bytes.NewReader(b), make([]byte, 32)) == nil {
			t.Fatal("a stream that nobody sealed")
		}
	})
}

// TestRegions: denied, passed to the host, and forgotten at the end.
func TestRegions(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"deny", "tmp", "host"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount := filepath.Join(t.TempDir(), "m")
	if err := os.MkdirAll(filepath.Join(mount, "host"), 0o755); err != nil {
		t.Fatal(err)
	}
	o := sealfs.Options{Policy: sealfs.Policy{Regions: []sealfs.Region{
		{Path: "/", Class: sealfs.Encrypted},
		{Path: "/deny", Class: sealfs.Denied},
		{Path: "/host", Class: sealfs.Passthrough},
		{Path: "/open", Class: sealfs.Authenticated},
		{Path: "/tmp", Class: sealfs.Ephemeral},
	}}}
	name, key := seal(t, dir, o)
	c := Config{Volume: name, Mount: mount, Key: key}
	out, res := shielded(t, c, "/bin/sh", "-c", `cd `+mount+`; ls deny 2>&1 | grep -o "Permission denied"; echo to-the-host > host/f
		mkdir open; echo authenticated-only > open/f; echo gone > tmp/f; cat tmp/f; mv open/f f 2>&1; cat f; test -e open/f || echo moved`)
	if want := "Permission denied\ngone\nauthenticated-only\nmoved\n"; out != want || res.Code != 0 {
		t.Errorf("exit %d\ngot  %q\nwant %q", res.Code, out, want)
	}
	if b, err := os.ReadFile(filepath.Join(mount, "host", "f")); err != nil || string(b) != "to-the-host\n" {
		t.Errorf("%q %v", b, err)
	}
	out, _ = shielded(t, c, "/bin/sh", "-c", "ls "+mount+"/tmp")
	if out != "" {
		t.Errorf("an ephemeral file is still there: %q", out)
	}
	fsck(t, name, key)
}

// TestKilledProgram: what a killed program had written is kept, as by a kernel.
func TestKilledProgram(t *testing.T) {
	name, key := seal(t, t.TempDir(), sealfs.Options{})
	c := Config{Volume: name, Mount: "/sealed", Key: key}
	_, res := shielded(t, c, "/bin/sh", "-c", "echo written > /sealed/f; kill -9 $$")
	if res.Code != 128+9 {
		t.Errorf("exit %d", res.Code)
	}
	fsck(t, name, key)
	out, _ := shielded(t, c, "/bin/cat", "/sealed/f")
	if out != "written\n" {
		t.Errorf("the file has %q", out)
	}
}

// TestWholeRoot runs programs that are in the volume themselves, libraries and
// dynamic loader included, with the volume as their whole file system.
func TestWholeRoot(t *testing.T) {
	dir := t.TempDir()
	copyIn := func(path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ldd := oracle.Tool(t, "ldd", "apt: libc-bin")
	for _, p := range []string{"/bin/bash", "/bin/ls", "/bin/cat"} {
		copyIn(p)
		out, _ := bare(t, "/", ldd, p)
		for _, f := range strings.Fields(out) {
			if strings.HasPrefix(f, "/") {
				copyIn(f)
			}
		}
	}
	for _, d := range []string{"proc", "tmp", "root"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "script"), []byte("#!/bin/bash\necho script $1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	name, key := seal(t, dir, sealfs.Options{Policy: sealfs.Policy{Regions: []sealfs.Region{
		{Path: "/", Class: sealfs.Encrypted}, {Path: "/proc", Class: sealfs.Passthrough}, {Path: "/tmp", Class: sealfs.Ephemeral},
	}}})
	c := Config{Volume: name, Mount: "/", Key: key, Dir: "/", Env: []string{"PATH=/bin"}}
	c.Program = "/bin/bash"
	out, res := shielded(t, c, "/bin/bash", "-c", `pwd; cd /root; pwd; script one; readlink() { ls -l $1; }; ls /; cat /etc/passwd; echo x > /tmp/x; cat /tmp/x; exec /bin/script two`)
	want := "/\n/root\nscript one\nbin\nlib\nlib64\nproc\nroot\ntmp\ncat: /etc/passwd: No such file or directory\nx\nscript two\n"
	if out != want || res.Code != 0 {
		t.Errorf("exit %d\ngot  %q\nwant %q", res.Code, out, want)
	}
	fsck(t, name, key)
}
