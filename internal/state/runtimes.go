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
	"slices"

	"github.com/palisade-sec/palisade/internal/atomicfile"
)

// maxRuntimes bounds the runtimes that a state directory remembers.
const maxRuntimes = 256

func (d *Dir) runtimes() string { return filepath.Join(d.root, "runtimes") }

// remember notes a runtime and its root. They are kept longer than any record: of a
// container whose record is lost it is known whom to ask.
func (d *Dir) remember(r Runtime) error {
	if r.Path == "" {
		return nil
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	// The name is the content's digest, which tells damage.
	path := filepath.Join(d.runtimes(), Digest(b))
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Mkdir(d.runtimes(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	entries, err := os.ReadDir(d.runtimes())
	if err != nil {
		return err
	}
	if len(entries) >= maxRuntimes {
		d.prune()
		if entries, err = os.ReadDir(d.runtimes()); err != nil {
			return err
		}
	}
	if len(entries) >= maxRuntimes {
		return fmt.Errorf("%s: more than %d runtimes and roots: remove those that are no longer used", d.runtimes(), maxRuntimes)
	}
	return atomicfile.File{Mode: 0o600}.Write(path, b)
}

// prune forgets runtimes whose root is gone: they have no container left.
func (d *Dir) prune() {
	known, err := d.Runtimes()
	if err != nil {
		return
	}
	for _, r := range known {
		if r.Root == "" {
			continue
		}
		if _, err := os.Lstat(r.Root); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if b, err := json.Marshal(r); err == nil {
			_ = os.Remove(filepath.Join(d.runtimes(), Digest(b)))
		}
	}
}

// Runtimes are all runtimes, with their roots, that ever had a container of the
// state directory. One that cannot be read is an error.
func (d *Dir) Runtimes() ([]Runtime, error) {
	entries, err := os.ReadDir(d.runtimes())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []Runtime
	for _, e := range entries {
		if len(e.Name()) != len(Digest(nil)) {
			continue // not whole yet
		}
		path := filepath.Join(d.runtimes(), e.Name())
		b, err := readBounded(path)
		if err != nil {
			return nil, err
		}
		var r Runtime
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&r); err != nil || Digest(b) != e.Name() {
			return nil, fmt.Errorf("%s: %w", path, ErrDamaged)
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b Runtime) int {
		return bytes.Compare([]byte(a.Path+"\x00"+a.Root), []byte(b.Path+"\x00"+b.Root))
	})
	return out, nil
}
