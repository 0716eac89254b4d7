// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"strconv"
	"strings"

	"github.com/palisade-sec/palisade/diag"
)

// Limits of one text, far above what real policy needs.
const (
	maxText  = 64 << 20
	maxDepth = 5000
)

// Parse reads one file: a policy file, or one that others include, whose items
// may be rules. The tree is what could be understood even when the list holds
// errors; the list is complete, up to a hundred errors.
//
// What needs other files or the meaning of names (variables, conflicts between
// rules) is left to [Resolve], which also takes a broken file, for the errors in
// what could be read.
func Parse(name string, text []byte) (*File, diag.List) {
	var diags diag.List
	f := &File{Name: name, Text: text}
	if len(text) > maxText {
		diags.Errorf(diag.Span{File: name}, "AA-TOO-LARGE", "the file is larger than %d bytes", maxText)
		f.Broken = true
		return f, diags
	}
	lx := newLexer(name, string(text), &diags)
	p := &parser{lx: lx, toks: lx.tokens()}
	for _, r := range p.items(ctxFile) {
		f.Items = append(f.Items, r)
	}
	f.Broken = diags.HasErrors()
	return f, diags
}

type context uint8

const (
	ctxFile  context = iota // top of a file: preamble, profiles or, in an included file, rules
	ctxRules                // body of a profile
)

type parser struct {
	lx      *lexer
	toks    []token
	i       int
	comment int // next comment of lx.comments
	depth   int
}

func (p *parser) peek() token { return p.toks[p.i] }

func (p *parser) peekAt(n int) token {
	if p.i+n < len(p.toks) {
		return p.toks[p.i+n]
	}
	return p.toks[len(p.toks)-1]
}

func (p *parser) next() token {
	t := p.toks[p.i]
	if t.kind != tEOF {
		p.i++
	}
	return t
}

// last is the token before the current one.
func (p *parser) last() token {
	if p.i == 0 {
		return token{}
	}
	return p.toks[p.i-1]
}

func (p *parser) spanFrom(start int) diag.Span { return p.lx.span(start, max(start, p.last().end)) }

func (p *parser) word(t token) Word {
	return Word{Value: t.text, Raw: p.lx.src[t.start:t.end], Pos: p.lx.span(t.start, t.end)}
}

func (p *parser) keyword(w string) bool {
	t := p.peek()
	return t.kind == tKeyword && t.text == w
}

func (p *parser) accept(k kind) bool {
	if p.peek().kind == k {
		p.next()
		return true
	}
	return false
}

func (p *parser) acceptWord(w string) bool {
	if p.keyword(w) {
		p.next()
		return true
	}
	return false
}

// syntaxError unwinds to the item that is being read.
type syntaxError struct{}

func (p *parser) fail(t token, format string, args ...any) {
	if t.kind != tError { // the lexer has said what is wrong
		p.lx.errorf(t.start, t.end, "AA-SYNTAX", format, args...)
	}
	panic(syntaxError{})
}

func (p *parser) describe(t token) string {
	switch t.kind {
	case tEOF:
		return "end of file"
	case tInclude:
		return "an include"
	}
	s := p.lx.src[t.start:t.end]
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	return "'" + strings.TrimSpace(s) + "'"
}

func (p *parser) expect(k kind, what string) token {
	t := p.peek()
	if t.kind != k {
		p.fail(t, "unexpected %s, expecting %s", p.describe(t), what)
	}
	return p.next()
}

func (p *parser) end() { p.expect(tEndOfRule, "',' at the end of the rule") }

// sync skips what is left of a broken item.
func (p *parser) sync() {
	for {
		switch p.peek().kind {
		case tEOF, tClose, tInclude:
			return
		case tEndOfRule, tError: // behind an error the lexer begins at a new line
			p.next()
			return
		case tOpen:
			p.next()
			p.skipBlock()
			return
		}
		p.next()
	}
}

func (p *parser) skipBlock() {
	for depth := 1; depth > 0; {
		switch p.next().kind {
		case tEOF:
			return
		case tOpen:
			depth++
		case tClose:
			depth--
		}
	}
}

// takeComments makes comment nodes of those that stand before off.
func (p *parser) takeComments(into []Rule, off int, trailingLine int) []Rule {
	for p.comment < len(p.lx.comments) {
		c := p.lx.comments[p.comment]
		if c.start >= off {
			break
		}
		p.comment++
		into = append(into, &Comment{
			at:       at{p.lx.span(c.start, c.start+len(c.text))},
			Text:     c.text,
			Trailing: p.lx.at(c.start).Line == trailingLine,
		})
		trailingLine = -1
	}
	return into
}

// items reads up to the end of the file or, in a profile, to the closing brace,
// which it leaves.
func (p *parser) items(ctx context) []Rule {
	var out []Rule
	line := -1
	if ctx == ctxRules {
		line = p.lx.at(p.last().start).Line
	}
	for {
		t := p.peek()
		out = p.takeComments(out, t.start, line)
		if t.kind == tEOF {
			return p.takeComments(out, len(p.lx.src)+1, line)
		}
		if t.kind == tClose {
			if ctx == ctxRules {
				return out
			}
			p.lx.errorf(t.start, t.end, "AA-SYNTAX", "unexpected '}'")
			p.next()
			continue
		}
		start := p.i
		r := p.item(ctx)
		if p.i == start {
			p.next()
		}
		if r == nil {
			line = -1
			continue
		}
		// Comments inside of the item go before it.
		if _, block := r.(bodied); !block {
			out = p.takeComments(out, p.last().end, -1)
		}
		out = append(out, r)
		line = r.Span().End.Line
	}
}

// bodied are the nodes that keep the comments inside of them.
type bodied interface{ body() }

func (*Profile) body() {}
func (*Block) body()   {}
func (*If) body()      {}

func (p *parser) item(ctx context) (r Rule) {
	start := p.i
	defer func() {
		if e := recover(); e != nil {
			if _, ok := e.(syntaxError); !ok {
				panic(e)
			}
			r = nil
			if k := p.last().kind; p.i == start || k != tEndOfRule && k != tError {
				p.sync()
			}
		}
	}()
	return p.parseItem(ctx)
}

// Top is the wrapper that lets preamble statements travel as rules through the
// item reader of a file.
func (*Alias) rule()      {}
func (*VarAssign) rule()  {}
func (*BoolAssign) rule() {}

func (p *parser) parseItem(ctx context) Rule {
	t := p.peek()
	switch t.kind {
	case tInclude:
		return p.next().inc
	case tError:
		p.next()
		panic(syntaxError{})
	case tHat, tCaret:
		p.next()
		k := KindHat
		if t.kind == tCaret {
			k = KindCaret
		}
		return p.profile(k, t)
	case tProfile:
		p.next()
		return p.profile(KindProfile, t)
	case tSetVar:
		switch p.peekAt(1).kind {
		case tEquals, tAddAssign, tCondAssign, tOverride:
			return p.preambleOnly(ctx, t, p.varAssign())
		}
	case tBoolVar:
		return p.preambleOnly(ctx, t, p.boolAssign())
	case tID:
		if ctx == ctxFile && p.peekAt(1).kind != tMode {
			return p.profile(KindBare, t)
		}
	case tKeyword:
		switch t.text {
		case "alias", "rewrite":
			return p.preambleOnly(ctx, t, p.alias())
		case "abi":
			return p.abi()
		case "if":
			return p.cond()
		case "set":
			return p.rlimit()
		}
	}
	return p.prefixed()
}

func (p *parser) preambleOnly(ctx context, t token, r Rule) Rule {
	if ctx != ctxFile {
		p.lx.errorf(t.start, p.last().end, "AA-PREAMBLE", "variables and aliases belong before the profiles, not into one")
	}
	return r
}

func (p *parser) abi() Rule {
	start := p.next().start
	t := p.next()
	if t.kind != tID && t.kind != tValue {
		p.i--
		p.fail(t, "unexpected %s, expecting the name of an abi", p.describe(t))
	}
	a := &ABI{Angle: t.kind == tID, Path: p.word(t)}
	p.end()
	a.Pos = p.spanFrom(start)
	return a
}

func (p *parser) alias() Rule {
	k := p.next()
	a := &Alias{Rewrite: k.text == "rewrite"}
	a.From = p.word(p.expect(tID, "the path that the alias replaces"))
	p.expect(tArrow, "'->'")
	a.To = p.word(p.expect(tID, "the path that the alias adds"))
	p.end()
	a.Pos = p.spanFrom(k.start)
	return a
}

// name takes the sigil and the braces off a variable.
func name(v string) (string, bool) {
	v = v[1:]
	if strings.HasPrefix(v, "{") {
		return v[1 : len(v)-1], true
	}
	return v, false
}

func (p *parser) assignOp() AssignOp {
	t := p.next()
	switch t.kind {
	case tEquals:
		return AssignSet
	case tAddAssign:
		return AssignAdd
	case tCondAssign:
		return AssignDefault
	case tOverride:
		return AssignOverride
	}
	p.i--
	p.fail(t, "unexpected %s, expecting '=', '+=', '?=' or ':='", p.describe(t))
	return 0
}

func (p *parser) varAssign() Rule {
	t := p.next()
	v := &VarAssign{}
	v.Name, v.Brace = name(t.text)
	v.Op = p.assignOp()
	for p.peek().kind == tValue {
		v.Values = append(v.Values, p.word(p.next()))
	}
	if len(v.Values) == 0 {
		p.fail(p.peek(), "unexpected %s, expecting a value of @{%s}", p.describe(p.peek()), v.Name)
	}
	v.Pos = p.spanFrom(t.start)
	return v
}

func (p *parser) boolAssign() Rule {
	t := p.next()
	v := &BoolAssign{}
	v.Name, v.Brace = name(t.text)
	v.Op = p.assignOp()
	v.Value = p.expr()
	v.Pos = p.spanFrom(t.start)
	return v
}

// Expressions.

func (p *parser) nested() func() {
	if p.depth++; p.depth > maxDepth {
		p.fail(p.peek(), "nested deeper than %d", maxDepth)
	}
	return func() { p.depth-- }
}

func (p *parser) expr() Expr {
	x := p.term()
	for p.keyword("or") {
		p.next()
		y := p.term()
		x = &Or{at: at{diag.Span{File: p.lx.file, Start: x.Span().Start, End: y.Span().End}}, X: x, Y: y}
	}
	return x
}

func (p *parser) term() Expr {
	x := p.not()
	for p.keyword("and") {
		p.next()
		y := p.not()
		x = &And{at: at{diag.Span{File: p.lx.file, Start: x.Span().Start, End: y.Span().End}}, X: x, Y: y}
	}
	return x
}

func (p *parser) not() Expr {
	if t := p.peek(); p.acceptWord("not") {
		defer p.nested()()
		x := p.not()
		return &Not{at: at{p.spanFrom(t.start)}, X: x}
	}
	return p.factor()
}

func (p *parser) factor() Expr {
	t := p.peek()
	switch {
	case t.kind == tBoolVar:
		p.next()
		b := &BoolVar{at: at{p.spanFrom(t.start)}}
		b.Name, b.Brace = name(t.text)
		return b
	case p.keyword("defined"):
		p.next()
		v := p.next()
		if v.kind != tSetVar && v.kind != tBoolVar {
			p.i--
			p.fail(v, "unexpected %s, expecting a variable after defined", p.describe(v))
		}
		d := &Defined{at: at{p.spanFrom(t.start)}, Bool: v.kind == tBoolVar}
		d.Name, d.Brace = name(v.text)
		return d
	case t.kind == tOpenParen:
		defer p.nested()()
		p.next()
		x := p.expr()
		p.expect(tCloseParen, "')'")
		return &Paren{at: at{p.spanFrom(t.start)}, X: x}
	case t.kind == tID || t.kind == tSetVar:
		l := p.operand()
		if op := p.peek(); op.kind == tOp {
			p.next()
			if k := p.peek().kind; k != tID && k != tSetVar {
				p.fail(p.peek(), "unexpected %s, expecting a value after %s", p.describe(p.peek()), op.text)
			}
			r := p.operand()
			return &Compare{at: at{p.spanFrom(t.start)}, Op: op.text, Left: l, Right: r}
		}
		return &Literal{at: at{p.spanFrom(t.start)}, Operand: l}
	}
	p.fail(t, "unexpected %s, expecting a condition", p.describe(t))
	return nil
}

func (p *parser) operand() Operand {
	t := p.next()
	return Operand{Word: p.word(t), Var: t.kind == tSetVar}
}

func (p *parser) cond() Rule {
	defer p.nested()()
	t := p.next() // if
	c := &If{Cond: p.expr()}
	c.Then = p.block(Prefix{})
	if p.acceptWord("else") {
		if p.keyword("if") {
			c.Else = p.cond()
		} else {
			c.Else = p.block(Prefix{})
		}
	}
	c.Pos = p.spanFrom(t.start)
	return c
}

func (p *parser) block(prefix Prefix) *Block {
	defer p.nested()()
	t := p.expect(tOpen, "'{'")
	b := &Block{Prefix: prefix}
	b.Rules, b.Close = p.rules()
	start := t.start
	if prefix.Pos.IsValid() {
		start = prefix.Pos.Start.Offset
	}
	b.Pos = p.spanFrom(start)
	return b
}

// rules reads the body of a block whose brace was taken, and the closing brace.
func (p *parser) rules() ([]Rule, diag.Span) {
	open := p.last()
	rules := p.items(ctxRules)
	t := p.peek()
	if t.kind != tClose {
		p.lx.errorf(open.start, open.end, "AA-SYNTAX", "this '{' is not closed")
		return rules, diag.Span{}
	}
	p.next()
	return rules, p.lx.span(t.start, t.end)
}

func (p *parser) profile(k ProfileKind, first token) Rule {
	defer p.nested()()
	pr := &Profile{Kind: k}
	pr.Name = p.word(p.expect(tID, "the name of a profile"))
	if v := pr.Name.Value; k == KindBare && !strings.HasPrefix(v, "/") && !strings.HasPrefix(v, ":") {
		p.lx.errorf(first.start, first.end, "AA-PROFILE-NAME", "the name of a profile begins with '/' or a namespace, or the keyword profile or hat stands before it")
	}
	if t := p.peek(); t.kind == tID || t.kind == tSetVar {
		pr.Attachment = p.word(p.next())
	}
	if t := p.peek(); t.kind == tCondList {
		pr.CondName, pr.Xattrs = p.group()
		pr.HasXattrs = true
	}
	for p.accept(tPlus) {
		p.expect(tIdentities, "identities")
		p.expect(tEquals, "'='")
		p.expect(tOpenParen, "'('")
		ids := p.values("an identity")
		p.expect(tCloseParen, "')'")
		pr.Identities = append(pr.Identities, ids)
	}
	switch t := p.peek(); t.kind {
	case tFlags:
		p.next()
		p.expect(tEquals, "'='")
		p.expect(tOpenParen, "'('")
		pr.FlagsWord, pr.HasFlags = true, true
		pr.Flags = p.values("a flag")
		p.expect(tCloseParen, "')'")
	case tOpenParen:
		p.next()
		pr.HasFlags = true
		pr.Flags = p.values("a flag")
		p.expect(tCloseParen, "')'")
	}
	p.expect(tOpen, "'{'")
	pr.Rules, pr.Close = p.rules()
	pr.Pos = p.spanFrom(first.start)
	return pr
}

// values reads one or more values.
func (p *parser) values(what string) []Word {
	var ws []Word
	for p.peek().kind == tValue {
		ws = append(ws, p.word(p.next()))
	}
	if len(ws) == 0 {
		p.fail(p.peek(), "unexpected %s, expecting %s", p.describe(p.peek()), what)
	}
	return ws
}

// group reads name=( conditions ).
func (p *parser) group() (Word, []Cond) {
	n := p.word(p.next())
	p.expect(tEquals, "'='")
	p.expect(tOpenParen, "'('")
	cs := p.conds()
	p.expect(tCloseParen, "')'")
	return n, cs
}

func (p *parser) conds() []Cond {
	var cs []Cond
	for p.peek().kind == tCondID {
		t := p.next()
		c := Cond{Name: p.word(t)}
		switch p.peek().kind {
		case tEquals:
			c.Op = CondEq
		case tOverride:
			c.Op = CondSet
		case tIn:
			c.Op = CondIn
		}
		if c.Op != CondNone {
			p.next()
			switch {
			case p.accept(tOpenParen):
				c.Paren = true
				c.Values = p.values("a value of " + t.text)
				p.expect(tCloseParen, "')'")
			case c.Op == CondIn:
				p.fail(p.peek(), "unexpected %s, expecting '('", p.describe(p.peek()))
			default:
				c.Values = []Word{p.word(p.expect(tValue, "a value of "+t.text))}
			}
		}
		c.Pos = p.spanFrom(t.start)
		cs = append(cs, c)
	}
	return cs
}

// prefix reads priority, audit, mode and owner, in that order.
func (p *parser) prefix() Prefix {
	var x Prefix
	start := p.i
	if t := p.peek(); p.accept(tPriority) {
		p.expect(tEquals, "'='")
		v := p.expect(tValue, "a number")
		n, err := strconv.Atoi(v.text)
		if err != nil || n < -1000 || n > 1000 {
			p.lx.errorf(t.start, v.end, "AA-PRIORITY", "invalid priority %s: it is a number from -1000 to 1000", v.text)
			n = 0
		}
		x.Priority, x.HasPriority = n, true
	}
	x.Audit = p.acceptWord("audit")
	switch {
	case p.acceptWord("allow"):
		x.Mode = ModeAllow
	case p.acceptWord("deny"):
		x.Mode = ModeDeny
	case p.acceptWord("prompt"):
		x.Mode = ModePrompt
	}
	switch {
	case p.acceptWord("owner"), p.acceptWord("user"):
		x.Owner = OwnerOwn
	case p.acceptWord("other"):
		x.Owner = OwnerOther
	}
	if p.i > start {
		x.Pos = p.spanFrom(p.toks[start].start)
	}
	return x
}

// condClasses are the rules that [CondRule] holds. group tells whether a
// peer=( … ) may follow, args how many bare words.
var condClasses = map[string]struct {
	class Class
	group bool
	args  int
}{
	"network":  {ClassNetwork, true, 2},
	"unix":     {ClassUnix, true, 0},
	"dbus":     {ClassDBus, true, 0},
	"signal":   {ClassSignal, false, 0},
	"ptrace":   {ClassPtrace, false, 0},
	"mqueue":   {ClassMqueue, false, 1},
	"io_uring": {ClassIOUring, true, 0},
	"userns":   {ClassUserns, false, 0},
}

func (p *parser) prefixed() Rule {
	start := p.peek().start
	x := p.prefix()
	t := p.peek()
	switch t.kind {
	case tOpen:
		return p.block(x)
	case tAll:
		p.next()
		p.end()
		return &AllRule{at: at{p.spanFrom(start)}, Prefix: x}
	case tID, tSetVar, tMode:
		return p.file(x, start)
	case tInclude:
		p.fail(t, "an include cannot stand inside of a rule")
	case tKeyword:
		if c, ok := condClasses[t.text]; ok {
			return p.condRule(x, start, c.class, c.group, c.args)
		}
		switch t.text {
		case "file", "safe", "unsafe":
			return p.file(x, start)
		case "link":
			return p.link(x, start)
		case "capability":
			p.next()
			r := &CapabilityRule{Prefix: x}
			for p.peek().kind == tID {
				r.Caps = append(r.Caps, p.word(p.next()))
			}
			p.end()
			r.Pos = p.spanFrom(start)
			return r
		case "mount", "remount", "umount", "unmount", "pivot_root":
			return p.mount(x, start)
		case "change_profile":
			return p.changeProfile(x, start)
		}
	}
	if x.Pos.IsValid() {
		p.fail(t, "unexpected %s, expecting a rule after %s", p.describe(t), strings.TrimSpace(p.lx.src[start:p.last().end]))
	}
	p.fail(t, "unexpected %s, expecting a rule or a profile", p.describe(t))
	return nil
}

func (p *parser) idOrVar(what string) Word {
	t := p.peek()
	if t.kind != tID && t.kind != tSetVar {
		p.fail(t, "unexpected %s, expecting %s", p.describe(t), what)
	}
	return p.word(p.next())
}

func (p *parser) file(x Prefix, start int) Rule {
	r := &FileRule{Prefix: x}
	r.File = p.acceptWord("file")
	if r.File && p.peek().kind == tEndOfRule {
		p.next()
		r.Pos = p.spanFrom(start)
		return r
	}
	switch {
	case p.acceptWord("safe"):
		r.ExecMode = ExecModeSafe
	case p.acceptWord("unsafe"):
		r.ExecMode = ExecModeUnsafe
	}
	if t := p.peek(); t.kind == tMode {
		r.PermsFirst = true
		r.Perms = p.word(p.next())
		r.Subset = p.acceptWord("subset")
		r.Path = p.idOrVar("a path")
	} else {
		r.Path = p.idOrVar("a path")
		r.Perms = p.word(p.expect(tMode, "permissions"))
	}
	if p.accept(tArrow) {
		r.Target = p.idOrVar("a profile or link target")
	}
	if t := p.peek(); t.kind == tID || t.kind == tSetVar {
		p.fail(p.last(), "a ',' is missing at the end of this rule")
	}
	p.end()
	r.Pos = p.spanFrom(start)
	return r
}

func (p *parser) link(x Prefix, start int) Rule {
	p.next()
	r := &LinkRule{Prefix: x}
	r.Subset = p.acceptWord("subset")
	r.Path = p.idOrVar("a path")
	p.expect(tArrow, "'->'")
	r.Target = p.idOrVar("a link target")
	p.end()
	r.Pos = p.spanFrom(start)
	return r
}

func isPerm(t token) bool {
	if t.kind == tMode || t.kind == tValue {
		return true
	}
	return t.kind == tKeyword && permWords[t.text]
}

var permWords = map[string]bool{
	"create": true, "bind": true, "listen": true, "accept": true, "connect": true, "shutdown": true,
	"getattr": true, "setattr": true, "getopt": true, "setopt": true, "send": true, "receive": true,
	"read": true, "write": true, "eavesdrop": true, "trace": true, "tracedby": true, "readby": true,
	"open": true, "delete": true, "override_creds": true, "sqpoll": true,
}

func (p *parser) condRule(x Prefix, start int, c Class, group bool, args int) Rule {
	p.next()
	r := &CondRule{Prefix: x, Class: c}
	switch t := p.peek(); {
	case t.kind == tOpenParen:
		p.next()
		r.ParenPerms = true
		for isPerm(p.peek()) {
			t := p.next()
			r.Perms = append(r.Perms, p.word(t))
		}
		p.expect(tCloseParen, "an access or ')'")
	case isPerm(t):
		r.Perms = append(r.Perms, p.word(p.next()))
	}
	if c == ClassNetwork {
		for len(r.Args) < args && p.peek().kind == tID {
			r.Args = append(r.Args, p.word(p.next()))
		}
	}
	r.Conds = p.conds()
	if c == ClassMqueue && p.peek().kind == tID {
		r.Args = append(r.Args, p.word(p.next()))
	}
	if group && p.peek().kind == tCondList {
		r.GroupName, r.Group = p.group()
		r.HasGroup = true
	}
	p.end()
	r.Pos = p.spanFrom(start)
	return r
}

func (p *parser) mount(x Prefix, start int) Rule {
	t := p.next()
	r := &MountRule{Prefix: x, Unmount: t.text == "unmount"}
	switch t.text {
	case "mount":
		r.Kind = Mount
	case "remount":
		r.Kind = Remount
	case "pivot_root":
		r.Kind = PivotRoot
	default:
		r.Kind = Umount
	}
	r.Conds = p.conds()
	var w Word
	if p.peek().kind == tID {
		w = p.word(p.next())
	}
	switch r.Kind {
	case Mount:
		r.Source = w
		if p.accept(tArrow) {
			r.HasArrow = true
			r.DstConds = p.conds()
			r.Target = p.word(p.expect(tID, "a mount point"))
		}
	case PivotRoot:
		r.Target = w
		if p.accept(tArrow) {
			r.HasArrow = true
			r.Profile = p.idOrVar("a profile")
		}
	default:
		r.Target = w
	}
	p.end()
	r.Pos = p.spanFrom(start)
	return r
}

func (p *parser) changeProfile(x Prefix, start int) Rule {
	p.next()
	r := &ChangeProfileRule{Prefix: x}
	switch {
	case p.acceptWord("safe"):
		r.ExecMode = ExecModeSafe
	case p.acceptWord("unsafe"):
		r.ExecMode = ExecModeUnsafe
	}
	if p.peek().kind == tID {
		r.Exec = p.word(p.next())
	}
	if p.accept(tArrow) {
		r.Target = p.idOrVar("a profile")
	}
	p.end()
	r.Pos = p.spanFrom(start)
	return r
}

func (p *parser) rlimit() Rule {
	t := p.next()
	if !p.acceptWord("rlimit") {
		p.fail(p.peek(), "unexpected %s, expecting rlimit after set", p.describe(p.peek()))
	}
	r := &RlimitRule{Resource: p.word(p.expect(tID, "a resource"))}
	if op := p.peek(); op.kind != tOp || op.text != "<=" {
		p.fail(op, "unexpected %s, expecting '<='", p.describe(op))
	}
	p.next()
	r.Value = p.word(p.expect(tValue, "a limit"))
	if p.peek().kind == tID {
		r.Unit = p.word(p.next())
	}
	p.end()
	r.Pos = p.spanFrom(t.start)
	return r
}
