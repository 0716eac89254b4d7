// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"slices"
	"sort"
)

//go:generate go run generate.go

// Count is how many names there are; a Name is below it.
const Count = nameCount

// Name is a system call's name, as a small number. The zero Name is valid; use
// the second result of Lookup.
type Name uint16

// Lookup finds a name that at least one ABI has.
func Lookup(name string) (Name, bool) {
	h := uint32(2166136261)
	for i := 0; i < len(name); i++ {
		h = (h ^ uint32(name[i])) * 16777619
	}
	h ^= h >> 15
	for {
		switch i := index[h%uint32(len(index))]; {
		case i == 0:
			return 0, false
		case names[i-1] == name:
			return Name(i - 1), true
		}
		h++
	}
}

func (n Name) String() string { return names[n] }

// On is the number of the call on an ABI, X32Bit and MIPS base included.
func (n Name) On(a Arch) (nr uint32, ok bool) {
	v := numbers[a][n]
	return uint32(v), v >= 0
}

// Since is the kernel version that first had the call on an ABI: the later of
// the call's own and the ABI's. Zero means not known.
func (n Name) Since(a Arch) Version {
	if since[n] == 0 {
		return 0
	}
	return max(since[n], floors[a])
}

// Names lists all names, sorted.
func Names() []string { return slices.Clone(names[:]) }

// Number finds a call of an ABI by name.
func (a Arch) Number(name string) (nr uint32, ok bool) {
	n, ok := Lookup(name)
	if !ok || !a.IsValid() {
		return 0, false
	}
	return n.On(a)
}

// Name finds a call of an ABI by number.
func (a Arch) Name(nr uint32) (string, bool) {
	n, ok := a.Call(nr)
	if !ok {
		return "", false
	}
	return names[n], true
}

// Call finds a call of an ABI by number.
func (a Arch) Call(nr uint32) (Name, bool) {
	if !a.IsValid() {
		return 0, false
	}
	ids := byNumber[a]
	i := sort.Search(len(ids), func(i int) bool { return uint32(numbers[a][ids[i]]) >= nr })
	if i < len(ids) && uint32(numbers[a][ids[i]]) == nr {
		return Name(ids[i]), true
	}
	return 0, false
}

// Calls lists the calls of an ABI in order of number.
func (a Arch) Calls() []Name {
	if !a.IsValid() {
		return nil
	}
	out := make([]Name, len(byNumber[a]))
	for i, id := range byNumber[a] {
		out[i] = Name(id)
	}
	return out
}

// Width is how the kernel reads an argument.
type Width uint8

// Widths. Word and Pointer are as wide as the ABI's registers.
const (
	Unknown Width = iota
	Half          // 16 bits
	Int           // 32 bits
	Word
	Pointer
	Wide // 64 bits
	None // the call has no such argument
)

// Args says how the kernel reads the arguments of a call on an ABI; known is
// false for calls that the tables have no signature for. On 32-bit ABIs a
// 64-bit value counts as two words, and how the ABI aligns the pair is not
// known here.
func (n Name) Args(a Arch) (w [6]Width, known bool) {
	s := signatures[widths[a][n]]
	if s == "-" {
		return w, false
	}
	for i := range w {
		w[i] = None
		if i < len(s) {
			switch s[i] {
			case 'h':
				w[i] = Half
			case 'i':
				w[i] = Int
			case 'l':
				w[i] = Word
			case 'p':
				w[i] = Pointer
			case 'q':
				w[i] = Wide
			}
		}
	}
	return w, true
}

// Mask is the bits of an argument that can matter to the kernel: 0 for an
// argument that the call does not have, all 64 where nothing is known.
func (n Name) Mask(a Arch, arg int) uint64 {
	full := ^uint64(0)
	if a.Bits() == 32 && a != X32 && a != MIPS64N32 && a != MIPSEL64N32 {
		full = 0xffffffff
	}
	w, known := n.Args(a)
	if !known {
		return full
	}
	switch w[arg] {
	case Half:
		return 0xffff
	case Int:
		return 0xffffffff
	case None:
		return 0
	}
	return full
}

// Group is a set of calls with a name, as systemd's SystemCallFilter= has them.
type Group struct {
	Name    string   // "@mount"
	Members []string // calls and other groups
}

// Groups lists all groups, sorted by name.
func Groups() []Group { return groups }

// Expand lists the calls of a group, those of groups inside it included, sorted.
func Expand(group string) ([]string, bool) {
	seen := map[string]bool{}
	out := map[string]bool{}
	var walk func(string) bool
	walk = func(g string) bool {
		for i := range groups {
			if groups[i].Name != g {
				continue
			}
			if seen[g] {
				return true
			}
			seen[g] = true
			for _, m := range groups[i].Members {
				if m[0] == '@' {
					walk(m)
				} else {
					out[m] = true
				}
			}
			return true
		}
		return false
	}
	if !walk(group) {
		return nil, false
	}
	list := make([]string, 0, len(out))
	for m := range out {
		list = append(list, m)
	}
	slices.Sort(list)
	return list, true
}

// GroupsOf lists the groups that have a call directly.
func GroupsOf(name string) []string {
	var out []string
	for _, g := range groups {
		if slices.Contains(g.Members, name) {
			out = append(out, g.Name)
		}
	}
	return out
}

// Len is how many calls an ABI has.
func (a Arch) Len() int {
	if !a.IsValid() {
		return 0
	}
	return len(byNumber[a])
}

// Each hands over the calls of an ABI in order of number.
func (a Arch) Each(yield func(nr uint32, name string)) {
	if !a.IsValid() {
		return
	}
	for _, id := range byNumber[a] {
		yield(uint32(numbers[a][id]), names[id])
	}
}

// EachCall hands over the calls of an ABI in order of number.
func (a Arch) EachCall(yield func(nr uint32, n Name)) {
	if !a.IsValid() {
		return
	}
	for _, id := range byNumber[a] {
		yield(uint32(numbers[a][id]), Name(id))
	}
}
