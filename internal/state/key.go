// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Bounds in bytes: of an ID, and of one that is a key as it is.
const (
	maxID  = 1024
	maxKey = 128
)

// ValidID reports whether a runtime may know a container by this ID. runc and crun
// take these characters; IDs above 255 bytes are left to them to refuse.
//
// Source: runc libcontainer/factory_linux.go, idRegex; crun src/libcrun/container.c.
func ValidID(id string) bool {
	return len(id) >= 1 && len(id) <= maxID && id != "." && id != ".." &&
		!strings.ContainsFunc(id, func(c rune) bool { return !idByte(c) && c != ',' })
}

func idByte(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '+' || c == '.' || c == '-'
}

// ValidKey reports whether a folder of this name can be a container's.
func ValidKey(key string) bool {
	return len(key) >= 1 && len(key) <= maxKey+len("~01234567") && key[0] != '.' && key[0] != '-' && key[0] != '~' &&
		!strings.ContainsFunc(key, func(c rune) bool { return !idByte(c) && c != '~' })
}

// mark is in keys and in no ID.
const mark = "~"

// baseKey is the ID where that can be a folder's name and a part of a profile's,
// else a name with its digest.
func baseKey(id string) string {
	if len(id) <= maxKey && ValidKey(id) {
		return id
	}
	const shown, digest = 64, 32
	name := strings.TrimLeft(strings.ReplaceAll(id, ",", "_"), ".-")
	return "_" + name[:min(len(name), shown)] + mark + Digest([]byte(id))[:digest]
}

// rootMark tells containers of one ID apart that are in different roots.
func rootMark(root string) string {
	const digest = 8
	return mark + Digest([]byte(cleanRoot(root)))[:digest]
}

func cleanRoot(root string) string {
	if root == "" {
		return ""
	}
	return filepath.Clean(root)
}

// keysOf are the keys that a container can have: the plain one, and the one that it
// gets when a container of another root has the plain one.
func keysOf(root, id string) [2]string {
	base := baseKey(id)
	return [2]string{base, base + rootMark(root)}
}

// IsKeyOf reports whether a container of that ID in that root can have the key.
func IsKeyOf(key, root, id string) bool {
	keys := keysOf(root, id)
	return ValidID(id) && (key == keys[0] || key == keys[1])
}

// Lookup reads the record of the container that has the ID in the runtime's root.
// Both are exact. The error wraps [ErrNotFound] or [ErrDamaged]; a damaged record
// counts unless its claim shows that it is of another root.
func (d *Dir) Lookup(root, id string) (Record, error) {
	if !ValidID(id) {
		return Record{}, fmt.Errorf("%.64q: %w", id, ErrNotFound)
	}
	keys := keysOf(root, id)
	if r, err := d.Get(keys[1]); !errors.Is(err, ErrNotFound) {
		return r, err
	}
	r, err := d.Get(keys[0])
	where := r
	if errors.Is(err, ErrDamaged) {
		var cerr error
		if where, cerr = d.Claimed(keys[0]); cerr != nil {
			return Record{}, err
		}
	} else if err != nil {
		return Record{}, err
	}
	if where.ID != id || cleanRoot(where.Runtime.Root) != cleanRoot(root) {
		return Record{}, fmt.Errorf("%.64q: %w", id, ErrNotFound)
	}
	return r, err
}

// KeyOf is the key of the container that has the ID in the runtime's root, also of
// one whose record is damaged. The error wraps [ErrNotFound].
func (d *Dir) KeyOf(root, id string) (string, error) {
	r, err := d.Lookup(root, id)
	if e := (*DamagedError)(nil); errors.As(err, &e) {
		return e.Key, nil
	}
	return r.Key, err
}

// Find is the container that a person means by a name, to look at: an ID that one
// container has, a key, or else the beginning of one ID, as engines print it. What
// acts on a container uses [Dir.Lookup]. The error wraps [ErrNotFound],
// [ErrAmbiguous] or [ErrDamaged].
func (d *Dir) Find(name string) (Record, error) {
	keys, err := d.names()
	if err != nil {
		return Record{}, err
	}
	var fits, begins []Record
	var damaged, damagedBegin error
	var near []string
	for _, key := range keys {
		r, err := d.Get(key)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if errors.Is(err, ErrDamaged) {
			var cerr error
			if r, cerr = d.Claimed(key); cerr != nil {
				r = Record{Key: key, ID: key}
			}
		} else if err != nil {
			return Record{}, err
		}
		full := keysOf(r.Runtime.Root, r.ID)[1]
		switch {
		case r.ID == name, full == name, key == name:
			fits = append(fits, r)
			damaged = errors.Join(damaged, err)
		case name != "" && strings.HasPrefix(r.ID, name):
			begins = append(begins, r)
			damagedBegin = errors.Join(damagedBegin, err)
		case name != "" && strings.HasPrefix(name, r.ID):
			near = append(near, r.ID)
		}
	}
	if len(fits) == 0 {
		fits, damaged = begins, damagedBegin
	}
	switch {
	case len(fits) == 1:
		return fits[0], damaged
	case len(fits) > 1:
		var names []string
		for _, r := range fits {
			names = append(names, fmt.Sprintf("%s (root %s)", keysOf(r.Runtime.Root, r.ID)[1], rootName(r.Runtime.Root)))
		}
		return Record{}, fmt.Errorf("%.64q: %w: %s", name, ErrAmbiguous, strings.Join(names, ", "))
	case len(near) > 0:
		const most = 3
		return Record{}, fmt.Errorf("%.64q: %w; there is %s", name, ErrNotFound, strings.Join(near[:min(len(near), most)], ", "))
	}
	return Record{}, fmt.Errorf("%.64q: %w", name, ErrNotFound)
}

func rootName(root string) string {
	if root == "" {
		return "of the runtime's default"
	}
	return root
}
