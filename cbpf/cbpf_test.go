// SPDX-License-Identifier: Apache-2.0

package cbpf

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestActionText(t *testing.T) {
	for s, a := range map[string]Action{
		"ALLOW": Allow, "LOG": Log, "ERRNO(1)": Errno(1), "ERRNO(0)": ErrnoBase, "TRACE(1)": Trace(1), "TRAP": Trap, "TRAP(5)": Trap | 5,
		"NOTIFY": Notify, "KILL_THREAD": KillThread, "KILL_PROCESS": KillProcess,
	} {
		if a.String() != s {
			t.Errorf("%#x is %q, want %q", uint32(a), a, s)
		}
		if p, err := ParseAction(s); err != nil || p != a {
			t.Errorf("ParseAction(%q) = %v %v", s, p, err)
		}
	}
	for _, s := range []string{"", "ERRNO", "ERRNO(", "ERRNO(x)", "ERRNO(70000)", "ALLOW(1)", "DENY"} {
		if a, err := ParseAction(s); err == nil {
			t.Errorf("ParseAction(%q) = %v", s, a)
		}
	}
}

// The kernel's order: the more restrictive action has the lower rank.
func TestRank(t *testing.T) {
	order := []Action{KillProcess, KillThread, Trap, Errno(1), Notify, Trace(1), Log, Allow}
	for i := range order[1:] {
		if order[i].Rank() >= order[i+1].Rank() {
			t.Errorf("%v does not win over %v", order[i], order[i+1])
		}
	}
}

var retAllow = Instruction{Op: Return, K: uint32(Allow)}

func TestVerify(t *testing.T) {
	tests := []struct {
		name string
		p    Program
		want string
	}{
		{"smallest", Program{retAllow}, ""},
		{"empty", nil, "it is empty"},
		{"longest", append(make(Program, 0, MaxInstructions), repeat(retAllow, MaxInstructions)...), ""},
		{"too long", repeat(retAllow, MaxInstructions+1), "4097 instructions"},
		{"no return", Program{{Op: LoadAbs}}, "no return"},
		{"load behind the end", Program{{Op: LoadAbs, K: 64}, retAllow}, "offset 64"},
		{"crooked load", Program{{Op: LoadAbs, K: 2}, retAllow}, "offset 2"},
		{"byte load", Program{{Op: ClassLD | SizeB | ModeABS}, retAllow}, "opcode"},
		{"indirect load", Program{{Op: ClassLD | SizeW | ModeIND}, retAllow}, "opcode"},
		{"modulo", Program{{Op: ClassALU | ModOp, K: 3}, retAllow}, "opcode"},
		{"division by zero", Program{{Op: ClassALU | DivOp}, retAllow}, "division by zero"},
		{"long shift", Program{{Op: ClassALU | LshOp, K: 32}, retAllow}, "shift by 32"},
		{"jump out", Program{{Op: Jump, K: 1}, retAllow}, "behind the end"},
		{"far jump", Program{{Op: Jump, K: 0xffffffff}, retAllow}, "behind the end"},
		{"branch out", Program{{Op: JumpEq, JT: 1}, retAllow}, "behind the end"},
		{"cell", Program{{Op: Store, K: 16}, retAllow}, "cell 16"},
		{"unwritten cell", Program{{Op: LoadMem, K: 3}, retAllow}, "read before"},
		{"written cell", Program{{Op: Store, K: 3}, {Op: LoadMem, K: 3}, retAllow}, ""},
		{"written on one way", Program{{Op: LoadAbs}, {Op: JumpEq, JF: 1}, {Op: Store, K: 1}, {Op: LoadMem, K: 1}, {Op: ReturnA}}, "read before"},
		{"unknown", Program{{Op: 0xffff}, retAllow}, "opcode"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.p.Verify()
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var v *VerifyError
			if !errors.As(err, &v) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func repeat(i Instruction, n int) Program {
	p := make(Program, n)
	for k := range p {
		p[k] = i
	}
	return p
}

func TestRun(t *testing.T) {
	d := &Data{Nr: 7, Arch: 0xc000003e, IP: 0x1122334455667788, Args: [6]uint64{0xaaaaaaaabbbbbbbb, 1, 2, 3, 4, 5}}
	ld := func(off uint32) Instruction { return Instruction{Op: LoadAbs, K: off} }
	retA := Instruction{Op: ReturnA}
	tests := []struct {
		name string
		p    Program
		big  bool
		want uint32
	}{
		{"number", Program{ld(0), retA}, false, 7},
		{"architecture", Program{ld(4), retA}, false, 0xc000003e},
		{"low word", Program{ld(Lo(0, false)), retA}, false, 0xbbbbbbbb},
		{"high word", Program{ld(Hi(0, false)), retA}, false, 0xaaaaaaaa},
		{"low word, big-endian", Program{ld(Lo(0, true)), retA}, true, 0xbbbbbbbb},
		{"first word, big-endian", Program{ld(16), retA}, true, 0xaaaaaaaa},
		{"instruction pointer", Program{ld(8), retA}, false, 0x55667788},
		{"length", Program{{Op: LoadLen}, retA}, false, 64},
		{"arithmetic", Program{{Op: LoadImm, K: 10}, {Op: ClassALU | AddOp, K: 5}, {Op: ClassALU | MulOp, K: 3}, {Op: ClassALU | SubOp, K: 1}, {Op: ClassALU | XorOp, K: 1}, retA}, false, 45},
		{"shift by X", Program{{Op: LoadImm, K: 4}, {Op: Tax}, {Op: LoadImm, K: 1}, {Op: ClassALU | LshOp | SrcX}, retA}, false, 16},
		{"negation", Program{{Op: LoadImm, K: 1}, {Op: ClassALU | NegOp}, retA}, false, 0xffffffff},
		{"division by X = 0", Program{{Op: LoadImm, K: 1}, {Op: ClassALU | DivOp | SrcX}, retA}, false, 0},
		{"memory", Program{{Op: LoadImm, K: 9}, {Op: Store, K: 2}, {Op: LoadImm}, {Op: LoadXMem, K: 2}, {Op: Txa}, retA}, false, 9},
		{"jset", Program{ld(0), {Op: JumpSet, K: 4, JT: 1}, {Op: Return, K: 1}, {Op: Return, K: 2}}, false, 2},
		{"jgt", Program{ld(0), {Op: JumpGt, K: 7, JT: 1}, {Op: Return, K: 1}, {Op: Return, K: 2}}, false, 1},
		{"jge", Program{ld(0), {Op: JumpGe, K: 7, JT: 1}, {Op: Return, K: 1}, {Op: Return, K: 2}}, false, 2},
		{"ja", Program{{Op: Jump, K: 1}, {Op: Return, K: 1}, {Op: Return, K: 2}}, false, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.p.Verify(); err != nil {
				t.Fatal(err)
			}
			got, _, err := tt.p.Run(d, tt.big)
			if err != nil || uint32(got) != tt.want {
				t.Errorf("%#x %v, want %#x", uint32(got), err, tt.want)
			}
		})
	}
}

func TestEncode(t *testing.T) {
	p := Program{{Op: 0x15, JT: 1, JF: 2, K: 0x01020304}, retAllow}
	little := []byte{0x15, 0, 1, 2, 4, 3, 2, 1, 6, 0, 0, 0, 0, 0, 0xff, 0x7f}
	if got := p.Encode(false); !bytes.Equal(got, little) {
		t.Errorf("%x", got)
	}
	for _, big := range []bool{false, true} {
		q, err := Decode(p.Encode(big), big)
		if err != nil || len(q) != 2 || q[0] != p[0] || q[1] != p[1] {
			t.Errorf("%v %v", q, err)
		}
		valid := Program{{Op: LoadAbs, K: 4}, retAllow}
		if GuessBigEndian(valid.Encode(big)) != big {
			t.Errorf("byte order %v is not guessed", big)
		}
	}
	if _, err := Decode(little[:9], false); !errors.Is(err, ErrLength) {
		t.Error(err)
	}
}

func TestFormat(t *testing.T) {
	p := Program{
		{Op: LoadAbs, K: 4},
		{Op: JumpEq, K: 0xc000003e, JF: 3},
		{Op: LoadAbs},
		{Op: JumpGe, K: 59, JF: 1},
		{Op: Jump, K: 1},
		{Op: Return, K: uint32(Errno(1))},
		{Op: And, K: 0xf},
		{Op: JumpSet | SrcX, JT: 0},
		{Op: LoadAbs, K: 20},
		{Op: ReturnA},
	}
	want := `    0  ld arch
    1  jeq  #0xc000003e, 2, 5                 ; amd64
    2  ld nr
    3  jge  #0x3b, 4, 5                       ; execve
    4  ja 6
    5  ret ERRNO(1)
    6  and #0xf
    7  jset x, 8, 8
    8  ld args[0].hi
    9  ret a
`
	got := p.Format(false, func(off int64, k uint32) string {
		switch {
		case off == OffsetArch:
			return "amd64"
		case off == OffsetNr && k == 59:
			return "execve"
		}
		return ""
	})
	if got = strings.ReplaceAll(got, ">", " "); got != want {
		t.Errorf("got:\n%s", got)
	}
}

func TestCacheable(t *testing.T) {
	const arch = 0xc000003e
	p := Program{
		{Op: LoadAbs, K: 4},
		{Op: JumpEq, K: arch, JF: 7},
		{Op: LoadAbs},
		{Op: JumpEq, K: 1, JT: 1},
		{Op: Jump, K: 1},
		retAllow, // 5: number 1
		{Op: JumpEq, K: 2, JT: 1},
		{Op: Jump, K: 2},     // 6
		{Op: LoadAbs, K: 16}, // 8: number 2
		{Op: Return},         // 9
		{Op: JumpEq, K: 3, JT: 1},
		retAllow, // 10
		{Op: Tax},
		retAllow, // 12: number 3
	}
	for nr, want := range map[uint32]string{1: "", 2: "looks at args[0].lo", 3: "is not one that the kernel emulates", 4: ""} {
		ok, why := p.Cacheable(arch, nr)
		if ok != (want == "") || !strings.Contains(why, want) {
			t.Errorf("number %d: %v %q, want %q", nr, ok, why, want)
		}
	}
	if ok, why := p.Cacheable(1, 1); ok || !strings.Contains(why, "KILL_THREAD") {
		t.Errorf("denied: %v %q", ok, why)
	}
}

func TestExplore(t *testing.T) {
	p := Program{
		{Op: LoadAbs},
		{Op: JumpEq, K: 41, JF: 6}, // socket
		{Op: LoadAbs, K: 20},
		{Op: JumpEq, JF: 4},
		{Op: LoadAbs, K: 16},
		{Op: JumpGe, K: 3, JT: 1},
		retAllow,
		{Op: JumpEq, K: 16},
		{Op: Return, K: uint32(Errno(1))},
	}
	out, err := p.Explore(KnownCall(1, 41), false)
	if err != nil {
		t.Fatal(err)
	}
	allowed := 0
	for _, o := range out {
		if o.Action == Allow {
			allowed++
			want := []Constraint{{16, ^uint32(0), 0, 2}, {20, ^uint32(0), 0, 0}}
			if len(o.Constraints) != 2 || o.Constraints[0] != want[0] || o.Constraints[1] != want[1] {
				t.Errorf("constraints %v, want %v", o.Constraints, want)
			}
		}
	}
	if allowed != 1 || len(out) < 3 {
		t.Errorf("%d ways, %d of them allow: %+v", len(out), allowed, out)
	}
	if out, err = p.Explore(KnownCall(1, 5), false); err != nil || len(out) != 1 || out[0].Action != Errno(1) {
		t.Errorf("another number: %+v %v", out, err)
	}
	odd := Program{{Op: LoadAbs, K: 16}, {Op: ClassALU | AddOp, K: 1}, {Op: JumpEq, K: 1}, retAllow}
	if _, err := odd.Explore(KnownCall(1, 1), false); !errors.Is(err, ErrArithmetic) {
		t.Errorf("arithmetic: %v", err)
	}
}

// randomProgram is a valid program of comparisons.
func randomProgram(rng *rand.Rand, n int) Program {
	p := make(Program, n)
	for at := range p {
		left := n - at - 1
		if left == 0 || rng.IntN(8) == 0 {
			p[at] = Instruction{Op: Return, K: []uint32{uint32(Allow), uint32(Errno(1)), 0}[rng.IntN(3)]}
			continue
		}
		k := []uint32{0, 1, 2, 5, 8, 0xff, 1 << 31, ^uint32(0)}[rng.IntN(8)]
		switch rng.IntN(6) {
		case 0, 1:
			p[at] = Instruction{Op: LoadAbs, K: 4 * rng.Uint32N(8)}
		case 2:
			p[at] = Instruction{Op: And, K: k}
		case 3:
			p[at] = Instruction{Op: Jump, K: rng.Uint32N(uint32(left))}
		default:
			op := []uint16{JumpEq, JumpGe, JumpGt, JumpSet}[rng.IntN(4)]
			p[at] = Instruction{Op: op, K: k, JT: uint8(rng.IntN(min(left, 200))), JF: uint8(rng.IntN(min(left, 200)))}
		}
	}
	return p
}

// The optimiser keeps the meaning, and never makes a program longer or slower.
func TestOptimize(t *testing.T) {
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 5))
		p := randomProgram(rng, 2+rng.IntN(40))
		if err := p.Verify(); err != nil {
			t.Fatal(err)
		}
		checkSame(t, p, p.Optimize(), rng)
		for _, pass := range Passes {
			checkSame(t, p, pass.Apply(p), rng)
		}
	}
}

func checkSame(t *testing.T, p, q Program, rng *rand.Rand) {
	t.Helper()
	if err := q.Verify(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, p.Format(false, nil), q.Format(false, nil))
	}
	if len(q) > len(p) {
		t.Fatalf("%d instructions became %d", len(p), len(q))
	}
	words := []uint64{0, 1, 2, 5, 8, 0xff, 1 << 31, 0xffffffff, ^uint64(0), 5 << 32}
	for range 60 {
		d := &Data{Nr: uint32(words[rng.IntN(len(words))]), Arch: uint32(words[rng.IntN(len(words))])}
		for i := range d.Args {
			d.Args[i] = words[rng.IntN(len(words))]
		}
		a, n, _ := p.Run(d, false)
		b, m, _ := q.Run(d, false)
		if a != b || m > n {
			t.Fatalf("%+v: %v in %d steps became %v in %d\n%s\n%s", d, a, n, b, m, p.Format(false, nil), q.Format(false, nil))
		}
	}
}

func TestBuilder(t *testing.T) {
	var b Builder
	b.Load(OffsetNr)
	b.Branch(JumpEq, 59, "exec", "other")
	b.Label("exec")
	b.Return(Errno(1))
	for range 300 { // far away
		b.Load(OffsetArch)
	}
	b.Label("other")
	b.Return(Allow)
	p, err := b.Program()
	if err != nil {
		t.Fatal(err)
	}
	for nr, want := range map[uint32]Action{59: Errno(1), 60: Allow} {
		if got := p.Eval(&Data{Nr: nr}, false); got != want {
			t.Errorf("number %d: %v", nr, got)
		}
	}
	b = Builder{}
	b.Branch(JumpEq, 1, "nowhere", "here")
	b.Label("here")
	b.Label("here")
	b.Return(Allow)
	if _, err := b.Program(); err == nil || !strings.Contains(err.Error(), "nowhere") || !strings.Contains(err.Error(), "twice") {
		t.Errorf("bad labels: %v", err)
	}
	b = Builder{}
	b.Label("back")
	b.Load(0)
	b.Jump("back")
	if _, err := b.Program(); err == nil || !strings.Contains(err.Error(), "backwards") {
		t.Errorf("backwards: %v", err)
	}
}

// FuzzCBPF: any bytes decode, verify, print, optimise and run without trouble.
func FuzzCBPF(f *testing.F) {
	for seed := range uint64(10) {
		f.Add(randomProgram(rand.New(rand.NewPCG(seed, 1)), 20).Encode(seed%2 == 0), seed%2 == 0, uint64(seed), uint64(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, big bool, nr, arg uint64) {
		p, err := Decode(b, big)
		if err != nil {
			return
		}
		_ = p.Format(big, nil)
		if !bytes.Equal(p.Encode(big), b) {
			t.Fatal("encoding changes the program")
		}
		if len(p) > 2000 || p.Verify() != nil {
			return
		}
		d := &Data{Nr: uint32(nr), Arch: uint32(nr >> 32), Args: [6]uint64{arg, nr, arg << 1, 3, 4, 5}}
		act, _, err := p.Run(d, big)
		if err != nil {
			t.Fatal(err)
		}
		q := p.Optimize()
		if got, _, err := q.Run(d, big); err != nil || got != act {
			t.Fatalf("optimised: %v %v, want %v", got, err, act)
		}
		p.Cacheable(d.Arch, d.Nr)
		if len(p) > 200 {
			return
		}
		out, err := p.Explore(KnownCall(d.Arch, d.Nr), big)
		if err != nil {
			return
		}
		for _, o := range out {
			if o.Action == act {
				return
			}
		}
		t.Fatalf("%v is not among the %d outcomes", act, len(out))
	})
}
