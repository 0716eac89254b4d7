// SPDX-License-Identifier: Apache-2.0

package cbpf

// Pass is one step of the optimiser. It takes a verified program and returns a
// verified one that answers the same, is not longer, and executes no more
// instructions for any call.
type Pass struct {
	Name  string
	Apply func(Program) Program
}

// Passes lists the optimiser's steps.
var Passes = []Pass{
	{"thread jumps", threadJumps},
	{"drop redundant loads", dropLoads},
	{"drop dead code", dropDead},
}

// Optimize applies all passes until nothing changes. It is for filters from
// elsewhere: those that package seccomp compiles gain nothing.
func (p Program) Optimize() Program {
	for range len(p) {
		n := len(p)
		before := p
		for _, pass := range Passes {
			p = pass.Apply(p)
		}
		if len(p) == n && same(before, p) {
			break
		}
	}
	return p
}

func same(p, q Program) bool {
	for i := range p {
		if p[i] != q[i] {
			return false
		}
	}
	return true
}

// threadJumps sends jumps to where the jumps they lead to go, turns jumps to a
// return into that return, and drops comparisons that both ways continue alike.
func threadJumps(p Program) Program {
	out := append(Program(nil), p...)
	// follow goes through unconditional jumps as far as a distance can say.
	follow := func(from, to, limit int) int {
		for out[to].Op == Jump {
			next := to + 1 + int(out[to].K)
			if next-from-1 > limit {
				break
			}
			to = next
		}
		return to
	}
	for at := len(out) - 1; at >= 0; at-- {
		i := &out[at]
		switch {
		case i.Op == Jump:
			to := follow(at, at+1+int(i.K), len(out))
			if out[to].IsReturn() {
				*i = out[to]
			} else {
				i.K = uint32(to - at - 1)
			}
		case i.IsJump():
			i.JT = uint8(follow(at, at+1+int(i.JT), 255) - at - 1)
			i.JF = uint8(follow(at, at+1+int(i.JF), 255) - at - 1)
			yes, no := at+1+int(i.JT), at+1+int(i.JF)
			if yes == no || out[yes].IsReturn() && out[yes] == out[no] {
				*i = Instruction{Op: Jump, K: uint32(yes - at - 1)}
				if out[yes].IsReturn() {
					*i = out[yes]
				}
			}
		}
	}
	return out
}

// dropLoads removes loads of what the accumulator holds already on every way.
func dropLoads(p Program) Program {
	type held struct {
		off  uint32
		seen bool
		many bool // different, or no plain word
	}
	at := make([]held, len(p)+1)
	join := func(to uint64, h held) {
		if to >= uint64(len(at)) {
			return
		}
		h.seen = true
		if !at[to].seen {
			at[to] = h
		} else if at[to] != h {
			at[to].many = true
		}
	}
	at[0] = held{seen: true, many: true}
	drop := make([]bool, len(p))
	for pc, i := range p {
		h := at[pc]
		next := uint64(pc) + 1
		switch {
		case i.Op == LoadAbs:
			drop[pc] = h.seen && !h.many && h.off == i.K
			join(next, held{off: i.K})
		case i.Op == Jump:
			join(next+uint64(i.K), h)
		case i.IsJump():
			join(next+uint64(i.JT), h)
			join(next+uint64(i.JF), h)
		case i.IsReturn():
		case i.Op == Store, i.Op == StoreX, i.Op == Tax, i.Op&7 == ClassLDX:
			join(next, h)
		default:
			join(next, held{many: true})
		}
	}
	return without(p, drop)
}

// dropDead removes what no way leads to, and jumps to the next instruction.
func dropDead(p Program) Program {
	reached := make([]bool, len(p)+1)
	reached[0] = true
	drop := make([]bool, len(p))
	for pc, i := range p {
		if !reached[pc] {
			drop[pc] = true
			continue
		}
		switch {
		case i.Op == Jump:
			reached[pc+1+int(i.K)] = true
			drop[pc] = i.K == 0
		case i.IsJump():
			reached[pc+1+int(i.JT)], reached[pc+1+int(i.JF)] = true, true
		case !i.IsReturn():
			reached[pc+1] = true
		}
	}
	return without(p, drop)
}

// without takes instructions out and corrects the distances over them.
func without(p Program, drop []bool) Program {
	place := make([]int, len(p)+1)
	n := 0
	for i := range p {
		place[i] = n
		if !drop[i] {
			n++
		}
	}
	place[len(p)] = n
	out := make(Program, 0, n)
	for at, i := range p {
		if drop[at] {
			continue
		}
		switch {
		case i.Op == Jump:
			i.K = uint32(place[at+1+int(i.K)] - place[at] - 1)
		case i.IsJump():
			i.JT = uint8(place[at+1+int(i.JT)] - place[at] - 1)
			i.JF = uint8(place[at+1+int(i.JF)] - place[at] - 1)
		}
		out = append(out, i)
	}
	return out
}
