// SPDX-License-Identifier: Apache-2.0

package sealfs

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Region is the class of the paths under a prefix.
type Region struct {
	Path  string `json:"path" yaml:"path"`
	Class Class  `json:"class" yaml:"class"`
}

// Freshness says when a run reports its generation to the session service.
type Freshness uint8

// Levels of freshness.
const (
	InRun    Freshness = 0
	AtExit   Freshness = 1
	AtFsync  Freshness = 2
	Interval Freshness = 3
)

var freshnessNames = [...]string{"in-run", "at-exit", "at-fsync", "interval"}

func (f Freshness) String() string {
	if int(f) < len(freshnessNames) {
		return freshnessNames[f]
	}
	return fmt.Sprintf("freshness(%d)", uint8(f))
}

// MarshalText writes the level by its name.
func (f Freshness) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText takes the name of a level.
func (f *Freshness) UnmarshalText(b []byte) error {
	for i, n := range freshnessNames {
		if n == string(b) {
			*f = Freshness(i)
			return nil
		}
	}
	return fmt.Errorf("freshness %q: want in-run, at-exit, at-fsync or interval", b)
}

// Policy is the region table of a volume.
type Policy struct {
	Regions   []Region
	Freshness Freshness
	Interval  time.Duration // for freshness Interval, whole milliseconds
}

// DefaultPolicy encrypts everything.
func DefaultPolicy() Policy {
	return Policy{Regions: []Region{{"/", Encrypted}}, Freshness: AtFsync}
}

const (
	regionMagic   = "REG1"
	maxRegions    = 256
	maxRegionPath = 1024
	maxRegionFile = 16 + maxRegions*(4+maxRegionPath)
)

// Normalize sorts the regions, adds "/" as encrypted when it is missing, and
// reports everything that is wrong with the policy.
func (p Policy) Normalize() (Policy, error) {
	out := p
	out.Regions = slices.Clone(p.Regions)
	var errs []error
	if !slices.ContainsFunc(out.Regions, func(r Region) bool { return r.Path == "/" }) {
		out.Regions = append(out.Regions, Region{"/", Encrypted})
	}
	slices.SortStableFunc(out.Regions, func(a, b Region) int { return strings.Compare(a.Path, b.Path) })
	for i, r := range out.Regions {
		switch {
		case !strings.HasPrefix(r.Path, "/") || path.Clean(r.Path) != r.Path || len(r.Path) > maxRegionPath || strings.ContainsRune(r.Path, 0):
			errs = append(errs, fmt.Errorf("region %q: want a clean absolute path of at most %d bytes", r.Path, maxRegionPath))
		case int(r.Class) >= len(classNames):
			errs = append(errs, fmt.Errorf("region %s: unknown class %d", r.Path, r.Class))
		case r.Path == "/" && !r.Class.Stored():
			errs = append(errs, fmt.Errorf("region /: class %v would leave the volume without a root directory", r.Class))
		case i > 0 && out.Regions[i-1].Path == r.Path:
			errs = append(errs, fmt.Errorf("region %s is given twice", r.Path))
		}
	}
	if len(out.Regions) > maxRegions {
		errs = append(errs, fmt.Errorf("%d regions, at most %d", len(out.Regions), maxRegions))
	}
	ms := out.Interval.Milliseconds()
	switch {
	case int(out.Freshness) >= len(freshnessNames):
		errs = append(errs, fmt.Errorf("unknown freshness %d", out.Freshness))
	case out.Freshness == Interval && (ms < 1 || ms > 1<<31):
		errs = append(errs, errors.New("freshness interval: want an interval of 1 ms or more"))
	case out.Freshness != Interval && out.Interval != 0:
		errs = append(errs, fmt.Errorf("freshness %v takes no interval", out.Freshness))
	}
	return out, errors.Join(errs...)
}

// Class is the class of a clean absolute path.
func (p *Policy) Class(name string) Class {
	best, class := -1, Encrypted
	for _, r := range p.Regions {
		if len(r.Path) > best && within(name, r.Path) {
			best, class = len(r.Path), r.Class
		}
	}
	return class
}

// begins says whether a region begins exactly at the path.
func (p *Policy) begins(name string) bool {
	return slices.ContainsFunc(p.Regions, func(r Region) bool { return r.Path == name })
}

// splits says whether a region begins below the path.
func (p *Policy) splits(name string) bool {
	return slices.ContainsFunc(p.Regions, func(r Region) bool { return r.Path != name && within(r.Path, name) })
}

// within says whether name is prefix or lies below it.
func within(name, prefix string) bool {
	return prefix == "/" || name == prefix || strings.HasPrefix(name, prefix) && name[len(prefix)] == '/'
}

// allows says whether the volume may hold an inode of the type at the path.
func (p *Policy) allows(name string, t Type) bool {
	return p.Class(name).Stored() || t == Dir && p.begins(name)
}

func (p *Policy) encode() []byte {
	b := append([]byte(regionMagic), 0, 0, 0, 0, byte(p.Freshness), 0, 0, 0)
	le.PutUint32(b[4:], uint32(len(p.Regions)))
	b = le.AppendUint32(b, uint32(p.Interval.Milliseconds()))
	for _, r := range p.Regions {
		b = append(b, byte(r.Class), 0)
		b = le.AppendUint16(b, uint16(len(r.Path)))
		b = append(b, r.Path...)
	}
	return b
}

func decodePolicy(b []byte) (Policy, error) {
	bad := func(cause string) (Policy, error) {
		return Policy{}, &CorruptError{What: "region table", Inode: inodeRegion, Cause: cause}
	}
	if len(b) < 16 || string(b[:4]) != regionMagic || !allZero(b[9:12]) {
		return bad("bad start")
	}
	n := le.Uint32(b[4:])
	p := Policy{Freshness: Freshness(b[8]), Interval: time.Duration(le.Uint32(b[12:])) * time.Millisecond}
	if n == 0 || n > maxRegions {
		return bad(fmt.Sprintf("%d regions", n))
	}
	b = b[16:]
	for range n {
		if len(b) < 4 || b[1] != 0 || len(b) < 4+int(le.Uint16(b[2:])) {
			return bad("cut short")
		}
		l := int(le.Uint16(b[2:]))
		p.Regions = append(p.Regions, Region{string(b[4 : 4+l]), Class(b[0])})
		b = b[4+l:]
	}
	if len(b) != 0 {
		return bad("bytes behind its end")
	}
	q, err := p.Normalize()
	if err != nil {
		return bad(err.Error())
	}
	if !slices.Equal(p.Regions, q.Regions) {
		return bad("regions are not sorted or lack /")
	}
	return p, nil
}
