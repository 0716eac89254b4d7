// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/laststep"
	"github.com/palisade-sec/palisade/policy"
)

// fill sets every member that can be set, so that a new one is tested too.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1700000000, 5).UTC()))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("json") != "-" {
				fill(v.Field(i))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case reflect.String:
		v.SetString("a<\"é\x7f")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(3)
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(5)
	default:
		panic(v.Kind())
	}
}

func fullRecord() Record {
	var r Record
	fill(reflect.ValueOf(&r).Elem())
	r.Version, r.ID, r.Runtime.Root = Version, "web", "/run/runc"
	return r
}

func TestSeal(t *testing.T) {
	want := fullRecord()
	b, err := seal(&want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := unseal(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !json.Valid(b) {
		t.Error("a record is not JSON")
	}
	big := want
	big.Command = []string{strings.Repeat("a", maxRecord)}
	if _, err := seal(&big); err == nil {
		t.Error("a record that could not be read back was written")
	}
}

// TestDamage cuts a record at each byte, flips each of its bits, and puts a byte
// before, into and behind it. Each is damaged, and none is absent.
func TestDamage(t *testing.T) {
	d := open(t)
	c, err := d.Create(fullRecord())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	path := filepath.Join(d.containers(), c.Key, recordFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	try := func(what string, b []byte) {
		t.Helper()
		n++
		r, err := unseal(b)
		if err == nil {
			t.Fatalf("%s: taken for %+v", what, r)
		}
		if n%50 != 0 { // through the folder, where it costs more
			return
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for name, err := range map[string]error{
			"get":    second(d.Get(c.Key)),
			"lookup": second(d.Lookup("/run/runc", "web")),
			"find":   second(d.Find("web")),
			"lock":   second(d.Lock(c.Key)),
			"list":   second(d.List()),
		} {
			if !errors.Is(err, ErrDamaged) || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), filepath.Dir(path)) {
				t.Fatalf("%s, %s: %v", what, name, err)
			}
		}
		if _, err := d.Create(Record{ID: "web", Runtime: Runtime{Root: "/run/runc"}}); !errors.Is(err, ErrExists) || !errors.Is(err, ErrDamaged) {
			t.Fatalf("%s: another of the name: %v", what, err)
		}
	}
	for i := range whole {
		try(fmt.Sprintf("%d of %d bytes", i, len(whole)), whole[:i])
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[i] ^= 1 << bit
			try(fmt.Sprintf("bit %d of byte %d flipped", bit, i), b)
		}
		for _, extra := range []string{" ", "0", "\n", "{", "\x00"} {
			try(fmt.Sprintf("%q before byte %d", extra, i), append(append(bytes.Clone(whole[:i]), extra...), whole[i:]...))
		}
	}
	try("something behind", append(bytes.Clone(whole), '\n'))
	try("nothing", nil)
	try("bytes of value 0", make([]byte, len(whole)))
	t.Logf("%d damaged records", n)

	held, err := d.Hold(c.Key)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if held.Damaged == nil || held.ID != "web" || held.Runtime.Root != "/run/runc" {
		t.Errorf("with its claim: %+v, %v", held.Record, held.Damaged)
	}
	if err := held.Save(); !errors.Is(err, ErrDamaged) {
		t.Errorf("a damaged record was written over: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// sealed writes a body as if it were a record.
func sealed(version int, body string) []byte {
	return fmt.Appendf(nil, "%s%d%s%s%s%s%s", sealVersion, version, sealDigest, sealSum(version, []byte(body)), sealRecord, body, sealEnd)
}

// TestStrict has records with a true checksum that this version must not read.
func TestStrict(t *testing.T) {
	good := fullRecord()
	b, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	body := string(b)
	if _, err := unseal(sealed(Version, body)); err != nil {
		t.Fatalf("as it is: %v", err)
	}
	replace := func(old, with string) string {
		t.Helper()
		if !strings.Contains(body, old) {
			t.Fatalf("no %s in %s", old, body)
		}
		return strings.Replace(body, old, with, 1)
	}
	for name, b := range map[string][]byte{
		"newer":              sealed(Version+1, replace(`"version":1`, `"version":2`)),
		"newer inside":       sealed(Version, replace(`"version":1`, `"version":2`)),
		"without a version":  sealed(Version, replace(`"version":1,`, ``)),
		"version 0":          sealed(0, replace(`"version":1`, `"version":0`)),
		"unknown member":     sealed(Version, replace(`"level":`, `"more":1,"level":`)),
		"a member twice":     sealed(Version, replace(`"level":`, `"level":"s0","level":`)),
		"in a member, twice": sealed(Version, replace(`"new_privileges":`, `"new_privileges":false,"new_privileges":`)),
		"another case":       sealed(Version, replace(`"level":`, `"Level":`)),
		"folded":             sealed(Version, replace(`"asked":`, `"aſked":`)),
		"escaped twice":      sealed(Version, replace(`"level":`, `"lev\u0065l":"s0","level":`)),
		"two values":         sealed(Version, body+body),
		"an array":           sealed(Version, `[]`),
		"null":               sealed(Version, `null`),
		"no value":           sealed(Version, ``),
		"deep":               sealed(Version, strings.Repeat(`{"a":`, 20000)+`1`+strings.Repeat(`}`, 20000)),
		"of before the seal": []byte("{\n  \"id\": \"web\",\n  \"engine\": \"oci\"\n}\n"),
	} {
		r, err := unseal(b)
		if err == nil {
			t.Errorf("%s: taken for %+v", name, r)
		}
		if (name == "newer") != errors.Is(err, errVersion) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUnreadable is about what stands in the place of a record.
func TestUnreadable(t *testing.T) {
	for name, replace := range map[string]func(folder, path string) error{
		"absent": func(_, path string) error { return os.Remove(path) },
		"a link": func(folder, path string) error {
			return errors.Join(os.Rename(path, folder+"/x"), os.Symlink("x", path))
		},
		"a pipe":  func(_, path string) error { return errors.Join(os.Remove(path), mkfifo(path)) },
		"folder":  func(_, path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"large":   func(_, path string) error { return os.Truncate(path, maxRecord+1) },
		"another": func(folder, path string) error { return os.Rename(folder+"/../other/"+recordFile, path) },
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t)
			for _, id := range []string{"web", "other"} {
				c, err := d.Create(Record{ID: id})
				if err != nil {
					t.Fatal(err)
				}
				c.Close()
			}
			folder := filepath.Join(d.containers(), "web")
			if err := replace(folder, filepath.Join(folder, recordFile)); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Get("web"); !errors.Is(err, ErrDamaged) || errors.Is(err, ErrNotFound) {
				t.Errorf("get: %v", err)
			}
			if _, err := d.Lookup("", "web"); !errors.Is(err, ErrDamaged) {
				t.Errorf("lookup: %v", err)
			}
			// Its claim shows that another root's container is not meant.
			if _, err := d.Lookup("/run/other", "web"); !errors.Is(err, ErrNotFound) {
				t.Errorf("lookup in another root: %v", err)
			}
			if err := os.Remove(filepath.Join(folder, claimFile)); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Lookup("/run/other", "web"); !errors.Is(err, ErrDamaged) {
				t.Errorf("lookup in another root, without a claim: %v", err)
			}
			if _, err := d.Get("none"); !errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) {
				t.Errorf("get of none: %v", err)
			}
		})
	}
}

func TestStep(t *testing.T) {
	d := open(t)
	c, err := d.Create(Record{ID: "web"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s, err := d.Step(c.Record); s != nil || err != nil {
		t.Errorf("before there is one: %+v, %v", s, err)
	}
	want := &laststep.Config{NoNewPrivileges: true, Filters: []laststep.Filter{{Flags: 1, Program: []byte("12345678")}}}
	if err := c.SaveStep(want); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Step(c.Record); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("%+v, %v", got, err)
	}
	other := &laststep.Config{}
	for name, spoil := range map[string]func() error{
		"another": func() error { return os.WriteFile(c.Path(StepFile), other.Encode(), 0o600) },
		"cut":     func() error { return os.Truncate(c.Path(StepFile), 3) },
		"removed": func() error { return os.Remove(c.Path(StepFile)) },
	} {
		if err := c.SaveStep(want); err != nil {
			t.Fatal(err)
		}
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if s, err := d.Step(c.Record); !errors.Is(err, ErrDamaged) || s != nil {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	gone := c.Record
	if err := c.Remove(); err != nil {
		t.Fatal(err)
	}
	if s, err := d.Step(gone); !errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) || s != nil {
		t.Errorf("of a container that was removed: %+v, %v", s, err)
	}
}

func TestPolicy(t *testing.T) {
	p := policy.Default()
	kept := PolicyOf(p)
	if q := kept.ForProcess(); q.Name != p.Name || q.Capabilities != p.Capabilities || q.Process.NewPrivileges != p.Process.NewPrivileges {
		t.Errorf("%+v", q)
	}
	p.MaskedPaths = nil
	if PolicyOf(p).Digest == kept.Digest {
		t.Error("another policy has the same digest")
	}
	none := Policy{}
	if q := none.ForProcess(); q.Capabilities != 0 || q.Process.NewPrivileges {
		t.Errorf("of an empty record: %+v", q)
	}
}

func TestPlanned(t *testing.T) {
	if _, err := (Record{Key: "web"}).Planned(); !errors.Is(err, ErrUnfinished) {
		t.Errorf("got %v", err)
	}
	asked := effective.State{NoNewPrivileges: true, Capabilities: effective.Capabilities{Bounding: caps.Docker}}
	if got, err := (Record{Asked: &asked}).Planned(); err != nil || !got.NoNewPrivileges {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestBundleOf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a, err := BundleOf(filepath.Dir(path), f, []byte("{}"))
	if err != nil || a.Ino == 0 || a.Dev == 0 || a.Digest != Digest([]byte("{}")) {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestBoot(t *testing.T) {
	d := open(t)
	c, err := d.Create(Record{ID: "web"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.BeforeBoot() {
		t.Error("made before the boot")
	}
	const other = "01234567-89ab-4cde-8f01-23456789abcd"
	for target, want := range map[string]bool{
		other + "." + Digest([]byte(other))[:16]:       true,
		other + "." + Digest([]byte(other + "x"))[:16]: false,
		other: false, "": false, ".": false,
	} {
		if err := os.Remove(c.Path(bootLink)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if target != "" {
			if err := os.Symlink(target, c.Path(bootLink)); err != nil {
				t.Fatal(err)
			}
		}
		if c.BeforeBoot() != want {
			t.Errorf("%q: %v", target, !want)
		}
	}
}

func TestRuntimes(t *testing.T) {
	d := open(t)
	if r, err := d.Runtimes(); err != nil || len(r) != 0 {
		t.Errorf("%v, %v", r, err)
	}
	a, b := Runtime{Path: "/usr/bin/crun", Root: "/a"}, Runtime{Path: "/usr/sbin/runc", Args: []string{"--root", "/b"}, Root: "/b"}
	for i, r := range []Runtime{b, a, a, {}} {
		c, err := d.Create(Record{ID: fmt.Sprint("c", i), Runtime: r})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	got, err := d.Runtimes()
	if err != nil || cmp.Diff([]Runtime{a, b}, got) != "" {
		t.Errorf("%+v, %v", got, err)
	}
	files, err := filepath.Glob(d.runtimes() + "/*")
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	if err := os.WriteFile(files[0], []byte(`{"path":"/bin/true"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Runtimes(); !errors.Is(err, ErrDamaged) {
		t.Errorf("with one that was changed: %v", err)
	}
}

func FuzzUnseal(f *testing.F) {
	r := fullRecord()
	b, err := seal(&r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, false)
	f.Add([]byte(`{"id":"a","ID":"b"}`), true)
	f.Add([]byte(`[{}]`), true)
	f.Add([]byte(`{"version":1,"command":["\u0000"]}`), true)
	f.Fuzz(func(t *testing.T, b []byte, wrap bool) {
		if wrap {
			b = sealed(Version, string(b))
		}
		r, err := unseal(b)
		if err != nil {
			return
		}
		again, err := seal(&r)
		if err != nil {
			t.Fatal(err)
		}
		same, err := unseal(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if d := cmp.Diff(r, same); d != "" {
			t.Fatal(d)
		}
	})
}
