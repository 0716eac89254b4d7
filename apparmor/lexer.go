// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"sort"
	"strings"

	"github.com/palisade-sec/palisade/diag"
)

// The lexer follows the reference scanner state by state: which text is one
// token depends on what stood before it ("send" is an access in a signal rule
// and part of a path elsewhere), and always the longest match wins, the earlier
// pattern where two are equally long. Matchers are functions from a text to the
// length they match (0: not at all).
//
// Source: parser/parser_lex.l.

type kind uint8

const (
	tEOF kind = iota
	tError
	tID        // a path, label or name
	tValue     // a value in a list or after =
	tCondID    // name before = or in
	tCondList  // peer or xattrs before =(
	tMode      // file permissions
	tSetVar    // @{name}
	tBoolVar   // $name
	tInclude   // a whole include statement
	tKeyword   // a word of the language, text says which
	tEndOfRule // ,
	tOpen      // {
	tClose     // }
	tOpenParen
	tCloseParen
	tEquals
	tAddAssign
	tCondAssign
	tOverride
	tArrow
	tCaret
	tHat
	tProfile
	tColon
	tFlags
	tPriority
	tIdentities
	tPlus
	tAll
	tIn
	tOp // == != < <= > >= in the expressions, text says which
)

type token struct {
	kind       kind
	start, end int
	text       string // decoded
	inc        *Include
}

type state uint8

const (
	sInitial state = iota
	sSubID
	sSubIDWS
	sSubValue
	sIdentityValue
	sExtCond
	sExtCondList
	sNetwork
	sListVal
	sListCond
	sListCondVal
	sListCondParenVal
	sAssign
	sRlimit
	sMount
	sDBus
	sSignal
	sPtrace
	sUnix
	sChangeProfile
	sInclude
	sIncludeExists
	sABI
	sUserns
	sMqueue
	sInteger
	sExpr
	sAssignExpr
	sAssignExprStart
)

// maxErrors bounds the diagnostics of one file.
const maxErrors = 100

type lexer struct {
	file  string
	src   string
	pos   int
	lines []int // offsets of line starts
	stack []state
	diags *diag.List

	comments []token

	include  *Include // being read
	incStart int
}

func newLexer(file, src string, diags *diag.List) *lexer {
	lx := &lexer{file: file, src: src, diags: diags, lines: lineStarts(src), stack: make([]state, 1, 8)}
	return lx
}

func lineStarts(src string) []int {
	lines := make([]int, 1, 1+strings.Count(src, "\n"))
	for i := 0; i < len(src); i++ {
		if src[i] == '\n' {
			lines = append(lines, i+1)
		}
	}
	return lines
}

func (lx *lexer) at(off int) diag.Pos {
	line := sort.SearchInts(lx.lines, off+1) - 1
	return diag.Pos{Offset: off, Line: line + 1, Column: off - lx.lines[line] + 1}
}

func (lx *lexer) span(start, end int) diag.Span {
	return diag.Span{File: lx.file, Start: lx.at(start), End: lx.at(end)}
}

func (lx *lexer) errorf(start, end int, code, format string, args ...any) {
	switch {
	case len(*lx.diags) < maxErrors:
		lx.diags.Errorf(lx.span(start, end), code, format, args...)
	case len(*lx.diags) == maxErrors:
		lx.diags.Errorf(lx.span(start, end), "AA-TOO-MANY", "too many errors; the rest of the file is not reported")
	}
}

func (lx *lexer) state() state  { return lx.stack[len(lx.stack)-1] }
func (lx *lexer) push(s state)  { lx.stack = append(lx.stack, s) }
func (lx *lexer) begin(s state) { lx.stack[len(lx.stack)-1] = s }
func (lx *lexer) pop() {
	if len(lx.stack) > 1 {
		lx.stack = lx.stack[:len(lx.stack)-1]
	}
}

// tokens scans the whole text. The last token is tEOF.
func (lx *lexer) tokens() []token {
	toks := make([]token, 0, len(lx.src)/8+8)
	for {
		t := lx.next()
		toks = append(toks, t)
		if t.kind == tEOF {
			return toks
		}
	}
}

// Patterns: each returns the length of the longest match at the start of s.

func isBlank(c byte) bool { return c == ' ' || c == '\t' }
func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
func isAlpha(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isAlnum(c byte) bool { return isAlpha(c) || isDigit(c) }

func blanks(s string) int {
	n := 0
	for n < len(s) && isBlank(s[n]) {
		n++
	}
	return n
}

func digits(s string) int {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return n
}

// newline matches \r?\n.
func newline(s string) int {
	switch {
	case strings.HasPrefix(s, "\n"):
		return 1
	case strings.HasPrefix(s, "\r\n"):
		return 2
	}
	return 0
}

// restOfLine matches .*\r?\n.
func restOfLine(s string) int {
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		return i + 1
	}
	return 0
}

const (
	clsID       = 1 << iota // [^ \t\r\n"!,]
	clsPlain                // [^ \t\n"!,]
	clsListPart             // [^ \t\n"!,()]
	clsIncPart              // [^ \t\r\n"!,<>]
	clsNoEq                 // [^ \t\n"!,=)]
	clsNoEqCol              // [^ \t\n"!,=:)]
	clsLeadNoEq             // [^ \t\n"!,=()+&]
	clsLeadNoEC             // [^ \t\n"!,=()+&:]
	clsPostVar              // [^ \t\n"!,=+?]
	clsIdentity             // [^ \t\r\n"!,{}\\=]
	clsEscPlain             // what a backslash takes along in an ID: [ \t"!,]
	clsEscParen             // and in a list: [ \t"!,()]
)

var class = func() (t [256]uint16) {
	excl := func(bit uint16, chars string) {
		for c := 1; c < 256; c++ { // NUL is in none
			if strings.IndexByte(chars, byte(c)) < 0 {
				t[c] |= bit
			}
		}
	}
	excl(clsID, " \t\r\n\"!,")
	excl(clsPlain, " \t\n\"!,")
	excl(clsListPart, " \t\n\"!,()")
	excl(clsIncPart, " \t\r\n\"!,<>")
	excl(clsNoEq, " \t\n\"!,=)")
	excl(clsNoEqCol, " \t\n\"!,=:)")
	excl(clsLeadNoEq, " \t\n\"!,=()+&")
	excl(clsLeadNoEC, " \t\n\"!,=()+&:")
	excl(clsPostVar, " \t\n\"!,=+?")
	excl(clsIdentity, " \t\r\n\"!,{}\\=")
	for _, c := range []byte(" \t\"!,") {
		t[c] |= clsEscPlain | clsEscParen
	}
	t['('] |= clsEscParen
	t[')'] |= clsEscParen
	return t
}()

// idRun matches {ID}*: plain characters, escapes, and commas that something
// follows.
func idRun(s string) int {
	i := 0
	for i < len(s) {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s) && class[s[i+1]]&clsEscPlain != 0:
			i += 2
		case class[c]&clsID != 0:
			i++
		case c == ',' && i+1 < len(s) && class[s[i+1]]&clsID != 0:
			i += 2
		default:
			return i
		}
	}
	return i
}

func incRun(s string) int {
	i := 0
	for i < len(s) {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s) && class[s[i+1]]&clsEscPlain != 0:
			i += 2
		case class[c]&clsIncPart != 0:
			i++
		case c == ',' && i+1 < len(s) && class[s[i+1]]&clsIncPart != 0:
			i += 2
		default:
			return i
		}
	}
	return i
}

func listRun(s string) int {
	i := 0
	for i < len(s) {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s) && class[s[i+1]]&clsEscParen != 0:
			i += 2
		case class[c]&clsListPart != 0:
			i++
		default:
			return i
		}
	}
	return i
}

// quoted matches "…", in which \" does not end the text if another quote
// follows.
func quoted(s string) int {
	if s == "" || s[0] != '"' {
		return 0
	}
	end := 0
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case 0:
			return end
		case '"':
			end = i + 1
			if s[i-1] != '\\' || i == 1 {
				return end
			}
		}
	}
	return end
}

// noAssign matches {IDS_NOASSIGN}.
func noAssign(s string) int {
	i := 0
	if s == "" {
		return 0
	}
	switch {
	case s[0] == ':' && len(s) > 1 && class[s[1]]&clsLeadNoEq != 0:
		i = 2
	case class[s[0]]&clsLeadNoEC != 0:
		i = 1
	default:
		return 0
	}
	for i < len(s) {
		c := s[i]
		switch {
		case class[c]&clsNoEqCol != 0:
			i++
		case c == ':' && i+1 < len(s) && class[s[i+1]]&clsNoEq != 0:
			i += 2
		case c == ',' && i+1 < len(s) && class[s[i+1]]&clsNoEqCol != 0:
			i += 2
		default:
			return i
		}
	}
	return i
}

func varName(s string) int {
	if s == "" || !isAlpha(s[0]) {
		return 0
	}
	n := 1
	for n < len(s) && (isAlnum(s[n]) || s[n] == '_') {
		n++
	}
	return n
}

// variable matches a sigil and a name, in braces or not.
func variable(s string, sigil byte) int {
	if len(s) < 2 || s[0] != sigil {
		return 0
	}
	if s[1] == '{' {
		n := varName(s[2:])
		if n > 0 && 2+n < len(s) && s[2+n] == '}' {
			return n + 3
		}
		return 0
	}
	if n := varName(s[1:]); n > 0 {
		return n + 1
	}
	return 0
}

// postVar matches {POST_VAR_ID}.
func postVar(s string) int {
	if s == "" {
		return 0
	}
	c := s[0]
	switch {
	case c == '\\' && len(s) > 1 && class[s[1]]&clsEscParen != 0:
		return 2
	case class[c]&clsPlain != 0 && c != '=' && c != '+' && len(s) > 1 && s[1] == '?':
		return 2
	case class[c]&clsPostVar != 0:
		return 1
	case c == ',' && len(s) > 1 && class[s[1]]&clsPostVar != 0:
		return 2
	}
	return 0
}

// label matches {LABEL}.
func label(s string) int {
	if s == "" {
		return 0
	}
	switch s[0] {
	case '/', '&':
		return 1 + idRun(s[1:])
	case ':':
		if len(s) > 1 && s[1] != '=' && s[1] != 0 {
			return 2 + idRun(s[2:])
		}
	case '@':
		v := variable(s, '@')
		if v == 0 {
			return 0
		}
		best := 0
		if p := postVar(s[v:]); p > 0 {
			best = v + p + idRun(s[v+p:])
		}
		// Without braces the end of the name may count as what follows it.
		if s[1] != '{' && v > 2 {
			best = max(best, v+idRun(s[v:]))
		}
		return best
	}
	return 0
}

func quotedLabel(s string) int {
	if len(s) > 1 && s[0] == '"' && strings.IndexByte("/@:&", s[1]) >= 0 {
		return quoted(s)
	}
	return 0
}

// modes matches {MODES} before a space or a comma, without that.
func modes(s string) int {
	i := 0
loop:
	for i < len(s) {
		switch s[i] | 0x20 {
		case 'r', 'w', 'a', 'l', 'm', 'k', 'x':
			if s[i] == 'A' || s[i] == 'K' {
				break loop
			}
			i++
		case 'p', 'c':
			switch {
			case i+1 < len(s) && s[i+1]|0x20 == 'x':
				i += 2
			case i+2 < len(s) && (s[i+1]|0x20 == 'i' || s[i+1]|0x20 == 'u') && s[i+2]|0x20 == 'x':
				i += 3
			default:
				break loop
			}
		case 'i', 'u':
			if i+1 >= len(s) || s[i+1]|0x20 != 'x' {
				break loop
			}
			i += 2
		default:
			break loop
		}
	}
	if i > 0 && i < len(s) && (isSpace(s[i]) || s[i] == ',') {
		return i
	}
	return 0
}

func word(s, w string) int {
	if strings.HasPrefix(s, w) {
		return len(w)
	}
	return 0
}

// pick keeps the longest match; the first of equals.
type pick struct {
	total int // with the trailing context, by which matches are compared
	len   int
	act   func(lx *lexer, text string) (token, bool)
}

func (p *pick) try(length, context int, act func(lx *lexer, text string) (token, bool)) {
	if length > 0 && length+context > p.total {
		*p = pick{length + context, length, act}
	}
}

type action = func(lx *lexer, text string) (token, bool)

// Actions. The bool tells whether there is a token.

func skip(*lexer, string) (token, bool)         { return token{}, false }
func popSkip(lx *lexer, _ string) (token, bool) { lx.pop(); return token{}, false }

func emit(k kind) action { return func(*lexer, string) (token, bool) { return token{kind: k}, true } }

func emitText(k kind) action {
	return func(_ *lexer, s string) (token, bool) { return token{kind: k, text: s}, true }
}

func emitID(k kind) action {
	return func(_ *lexer, s string) (token, bool) { return token{kind: k, text: decode(s)}, true }
}

func pushEmit(st state, k kind) action {
	return func(lx *lexer, _ string) (token, bool) { lx.push(st); return token{kind: k}, true }
}

func pushEmitID(st state, k kind) action {
	return func(lx *lexer, s string) (token, bool) { lx.push(st); return token{kind: k, text: decode(s)}, true }
}

func beginEmit(st state, k kind) action {
	return func(lx *lexer, _ string) (token, bool) { lx.begin(st); return token{kind: k}, true }
}

func popEmit(k kind) action {
	return func(lx *lexer, _ string) (token, bool) { lx.pop(); return token{kind: k}, true }
}

func popEmitID(k kind) action {
	return func(lx *lexer, s string) (token, bool) { lx.pop(); return token{kind: k, text: decode(s)}, true }
}

var (
	actID         = emitID(tID)
	actValue      = emitID(tValue)
	actCondID     = emitID(tCondID)
	actPopID      = popEmitID(tID)
	actPopValue   = popEmitID(tValue)
	actRawValue   = emitText(tValue)
	actKeyword    = emitText(tKeyword)
	actMode       = emitText(tMode)
	actSetVar     = emitText(tSetVar)
	actBoolVar    = emitText(tBoolVar)
	actOp         = emitText(tOp)
	actOpen       = emit(tOpen)
	actPopOpen    = popEmit(tOpen)
	actClose      = emit(tClose)
	actColon      = emit(tColon)
	actEquals     = emit(tEquals)
	actOverride   = emit(tOverride)
	actIn         = emit(tIn)
	actAll        = emit(tAll)
	actArrow      = emit(tArrow)
	actOpenParen  = emit(tOpenParen)
	actCloseParen = emit(tCloseParen)
	actPopParen   = popEmit(tCloseParen)
	actBeginList  = beginEmit(sListVal, tOpenParen)
	actPushList   = pushEmit(sListVal, tOpenParen)
	actBeginCond  = beginEmit(sListCond, tOpenParen)
	actEqValue    = beginEmit(sSubValue, tEquals)
	actSetValue   = beginEmit(sSubValue, tOverride)
	actEqParen    = pushEmit(sListCondParenVal, tEquals)
	actEqOne      = pushEmit(sListCondVal, tEquals)
	actSetParen   = pushEmit(sListCondParenVal, tOverride)
	actSetOne     = pushEmit(sListCondVal, tOverride)
	actPriority   = pushEmit(sInteger, tPriority)
	actFlags      = pushEmit(sExtCond, tFlags)
	actCond       = pushEmitID(sExtCond, tCondID)
	actCondListID = pushEmitID(sExtCondList, tCondList)
	actIdentities = pushEmit(sExtCond, tIdentities)
	actIdentBegin = beginEmit(sExtCond, tIdentities)
	actBoolAssign = func(lx *lexer, s string) (token, bool) {
		lx.push(sAssignExprStart)
		return token{kind: tBoolVar, text: s}, true
	}
	actCaret       = pushEmit(sSubID, tCaret)
	actArrowID     = pushEmit(sSubIDWS, tArrow)
	actAssign      = pushEmit(sAssign, tEquals)
	actAddAssign   = pushEmit(sAssign, tAddAssign)
	actCondAssign  = pushEmit(sAssign, tCondAssign)
	actOverAssign  = pushEmit(sAssign, tOverride)
	actPlus        = pushEmit(sIdentityValue, tPlus)
	actHat         = pushEmit(sSubID, tHat)
	actProfile     = pushEmit(sSubID, tProfile)
	actExprEquals  = beginEmit(sAssignExpr, tEquals)
	actExprAdd     = beginEmit(sAssignExpr, tAddAssign)
	actExprCond    = beginEmit(sAssignExpr, tCondAssign)
	actExprOver    = beginEmit(sAssignExpr, tOverride)
	actPopRawValue = func(lx *lexer, s string) (token, bool) { lx.pop(); return token{kind: tValue, text: s}, true }
)

func actEndOfRule(lx *lexer, _ string) (token, bool) {
	if lx.state() != sInitial {
		lx.pop()
	}
	return token{kind: tEndOfRule}, true
}

func actComment(lx *lexer, s string) (token, bool) {
	lx.comments = append(lx.comments, token{start: lx.pos, end: lx.pos + len(s), text: strings.TrimRight(s, "\r\n")})
	return token{}, false
}

func actPopComment(lx *lexer, s string) (token, bool) {
	actComment(lx, s)
	lx.pop()
	return token{}, false
}

func actAssignComma(lx *lexer, s string) (token, bool) {
	lx.errorf(lx.pos, lx.pos+1, "AA-VAR-COMMA", "variable declarations do not take a comma at the end")
	return token{}, false
}

func startInclude(hash, exists bool) action {
	return func(lx *lexer, s string) (token, bool) {
		lx.include = &Include{Hash: hash, IfExists: exists}
		lx.incStart = lx.pos
		st := sInclude
		if exists {
			st = sIncludeExists
		}
		lx.push(st)
		return token{}, false
	}
}

var (
	actHashIncExists = startInclude(true, true)
	actIncExists     = startInclude(false, true)
	actHashInc       = startInclude(true, false)
	actInc           = startInclude(false, false)
)

// actPath ends an include or abi statement's path.
func actPath(lx *lexer, s string) (token, bool) {
	raw := s
	angle := s[0] == '<'
	if angle {
		s = s[1 : len(s)-1]
	}
	s = strings.TrimFunc(s, func(r rune) bool { return r < 0x80 && isSpace(byte(r)) })
	if s == "" {
		lx.errorf(lx.pos, lx.pos+len(raw), "AA-INCLUDE-EMPTY", "no file is named")
		lx.pop()
		return token{kind: tError}, true
	}
	w := Word{Value: decode(s), Raw: raw, Pos: lx.span(lx.pos, lx.pos+len(raw))}
	if lx.state() == sABI {
		k := tValue
		if angle {
			k = tID
		}
		return token{kind: k, text: w.Value}, true
	}
	inc := lx.include
	inc.Angle, inc.Path = angle, w
	inc.Pos = lx.span(lx.incStart, lx.pos+len(raw))
	lx.include = nil
	lx.pop()
	return token{kind: tInclude, inc: inc, start: lx.incStart}, true
}

func actListValue(lx *lexer, s string) (token, bool) {
	return token{kind: tValue, text: decode(s)}, true
}

func actRlimitWord(_ *lexer, s string) (token, bool) {
	if s == "infinity" {
		return token{kind: tValue, text: s}, true
	}
	return token{kind: tID, text: s}, true
}

var keywordState = map[string]state{
	"capability": sInitial, "else": sInitial, "not": sInitial, "defined": sInitial,
	"unsafe": sInitial, "safe": sInitial, "link": sInitial, "owner": sInitial, "user": sInitial,
	"other": sInitial, "subset": sInitial, "audit": sInitial, "deny": sInitial, "allow": sInitial,
	"prompt": sInitial, "set": sInitial, "alias": sInitial, "rewrite": sInitial, "file": sInitial,
	"pivot_root": sInitial, "in": sInitial, "send": sInitial, "receive": sInitial, "bind": sInitial,
	"read": sInitial, "write": sInitial, "eavesdrop": sInitial, "peer": sInitial, "trace": sInitial,
	"tracedby": sInitial, "readby": sInitial, "delete": sInitial, "open": sInitial, "io_uring": sInitial,
	"override_creds": sInitial, "sqpoll": sInitial, "all": sInitial, "priority": sInitial,
	"and": sInitial, "or": sInitial,

	"rlimit": sRlimit, "network": sNetwork, "change_profile": sChangeProfile,
	"mount": sMount, "remount": sMount, "umount": sMount, "unmount": sMount,
	"dbus": sDBus, "signal": sSignal, "ptrace": sPtrace, "unix": sUnix, "abi": sABI,
	"userns": sUserns, "mqueue": sMqueue, "if": sExpr,
}

func actWord(lx *lexer, s string) (token, bool) {
	st, ok := keywordState[s]
	if !ok {
		return token{kind: tID, text: s}, true
	}
	// Going from the initial state into itself grows the stack of the reference
	// scanner, which nothing ever unwinds: leave it out.
	if st != sInitial {
		lx.push(st)
	}
	switch s {
	case "open":
		return token{kind: tOpen}, true // the reference scanner takes the word for the brace
	case "all":
		return token{kind: tAll}, true
	}
	return token{kind: tKeyword, text: s}, true
}

func contains(st state, set ...state) bool {
	for _, s := range set {
		if s == st {
			return true
		}
	}
	return false
}

// next scans one token.
func (lx *lexer) next() token {
	for {
		if lx.pos >= len(lx.src) {
			if lx.include != nil {
				lx.errorf(lx.incStart, len(lx.src), "AA-INCLUDE-EMPTY", "no file is named")
				lx.include = nil
			}
			return token{kind: tEOF, start: len(lx.src), end: len(lx.src)}
		}
		var p pick
		lx.match(&p, lx.src[lx.pos:])
		if p.act == nil {
			return lx.unexpected()
		}
		start := lx.pos
		t, ok := p.act(lx, lx.src[start:start+p.len])
		lx.pos = start + p.len
		if ok {
			if t.kind != tInclude {
				t.start = start
			}
			t.end = lx.pos
			return t
		}
	}
}

// unexpected reports a character that no pattern takes, and goes on behind the
// next comma or line end.
func (lx *lexer) unexpected() token {
	start := lx.pos
	c := lx.src[start]
	what := string(lx.src[start])
	if c < ' ' || c > '~' {
		what = "\\x" + string("0123456789abcdef"[c>>4]) + string("0123456789abcdef"[c&15])
	}
	if c == '\n' || c == '\r' {
		lx.errorf(start, start+1, "AA-LEX", "unexpected end of line")
	} else {
		lx.errorf(start, start+1, "AA-LEX", "unexpected character '%s'", what)
	}
	lx.include = nil
	lx.stack = lx.stack[:1]
	lx.stack[0] = sInitial
	i := strings.IndexAny(lx.src[start:], ",\n{}")
	switch {
	case i < 0:
		lx.pos = len(lx.src)
	case i == 0 || lx.src[start+i] == ',' || lx.src[start+i] == '\n':
		lx.pos = start + i + 1
	default:
		lx.pos = start + i
	}
	return token{kind: tError, start: start, end: lx.pos}
}

func (lx *lexer) match(p *pick, s string) {
	st := lx.state()
	c := s[0]
	if isBlank(c) && !contains(st, sSubID, sSubValue) {
		p.try(blanks(s), 0, skip)
		return // no other pattern begins with a blank where this one is on
	}
	switch st {
	case sInclude, sIncludeExists, sABI:
		switch {
		case c == '<':
			if i := strings.IndexAny(s[1:], "\">\t\r\n"); i > 0 && s[1+i] == '>' {
				p.try(i+2, 0, actPath)
			} else if q := quoted(s[1:]); q > 0 && 1+q < len(s) && s[1+q] == '>' {
				p.try(q+2, 0, actPath)
			}
		case c == '"':
			p.try(quoted(s), 0, actPath)
		default:
			p.try(incRun(s), 0, actPath)
		}
		if st == sABI && c == ',' {
			p.try(1, 0, actEndOfRule)
		}
	case sSubID, sSubIDWS:
		p.try(idRun(s), 0, actPopID)
		p.try(quoted(s), 0, actPopID)
	case sSubValue:
		p.try(idRun(s), 0, actPopValue)
		p.try(quoted(s), 0, actPopValue)
	case sIdentityValue:
		lx.matchIdentities(p, s, actIdentBegin)
		n := 0
		for n < len(s) && class[s[n]]&clsIdentity != 0 {
			n++
		}
		p.try(n, 0, actPopValue)
		p.try(quoted(s), 0, actPopValue)
		return // a line end is an error here
	case sListVal:
		p.try(word(s, ")"), 0, actPopParen)
		p.try(word(s, ","), 0, skip)
		p.try(listRun(s), 0, actListValue)
		p.try(quoted(s), 0, actListValue)
	case sExtCond:
		lx.matchExtCond(p, s)
	case sExtCondList:
		p.try(word(s, "="), 0, actEquals)
		p.try(word(s, "("), 0, actBeginCond)
	case sListCondVal, sListCondParenVal:
		act := actPopValue
		if st == sListCondParenVal {
			p.try(word(s, ")"), 0, popSkip)
			act = actValue
		}
		p.try(listRun(s), 0, act)
		if q := quoted(s); q > 2 {
			p.try(q, 0, act)
		}
	case sListCond:
		p.try(word(s, ")"), 0, actPopParen)
		p.try(word(s, ","), 0, skip)
		p.try(noAssign(s), 0, actCondID)
		if n := word(s, "="); n > 0 {
			b := blanks(s[n:])
			if o := word(s[n+b:], "("); o > 0 {
				p.try(n+b+o, 0, actEqParen)
			}
			p.try(n, 0, actEqOne)
		}
		if n := word(s, ":="); n > 0 {
			b := blanks(s[n:])
			if o := word(s[n+b:], "("); o > 0 {
				p.try(n+b+o, 0, actSetParen)
			}
			p.try(n, 0, actSetOne)
		}
	case sAssign:
		p.try(idRun(s), 0, actValue)
		p.try(quoted(s), 0, actValue)
		p.try(word(s, ","), 0, actAssignComma)
		if c == '#' {
			p.try(restOfLine(s), 0, actPopComment)
		}
		p.try(word(s, "\\\n"), 0, skip)
		p.try(newline(s), 0, popSkip)
		return
	case sChangeProfile:
		p.try(word(s, "safe"), 0, actKeyword)
		p.try(word(s, "unsafe"), 0, actKeyword)
		p.try(word(s, "->"), 0, actArrowID)
		p.try(idRun(s), 0, actID)
		p.try(quoted(s), 0, actID)
		p.try(word(s, ","), 0, actEndOfRule)
	case sRlimit:
		n := digits(s)
		if c == '-' {
			if n = digits(s[1:]); n > 0 {
				n++
			}
		}
		p.try(n, 0, actRawValue)
		n = 0
		for n < len(s) && (isAlpha(s[n]) || s[n] == '_') {
			n++
		}
		p.try(n, 0, actRlimitWord)
		p.try(word(s, "<="), 0, actOp)
		p.try(word(s, ","), 0, actEndOfRule)
	case sUserns:
		p.try(word(s, "create"), 0, actKeyword)
		p.try(word(s, ","), 0, actEndOfRule)
	case sInteger:
		p.try(word(s, "="), 0, actEquals)
		n := 0
		if c == '+' || c == '-' {
			n = 1
		}
		if d := digits(s[n:]); d > 0 {
			p.try(n+d, 0, actPopRawValue)
		}
		return
	case sNetwork, sMount, sDBus, sSignal, sPtrace, sUnix, sMqueue:
		lx.matchCondRule(p, s, st)
	case sExpr, sAssignExpr:
		lx.matchExpr(p, s, st)
	case sAssignExprStart:
		p.try(word(s, "="), 0, actExprEquals)
		p.try(word(s, "+="), 0, actExprAdd)
		p.try(word(s, "?="), 0, actExprCond)
		p.try(word(s, ":="), 0, actExprOver)
	case sInitial:
		lx.matchInitial(p, s)
	}
	if !contains(st, sSubID, sSubValue) {
		p.try(newline(s), 0, skip)
	}
}

func (lx *lexer) matchExtCond(p *pick, s string) {
	assign := func(op string, value, bare action) {
		n := word(s, op)
		if n == 0 {
			return
		}
		b := blanks(s[n:])
		if n+b < len(s) && s[n+b] != '(' && s[n+b] != '\n' {
			p.try(n+b, 1, value)
		}
		p.try(n, 0, bare)
	}
	assign("=", actEqValue, actEquals)
	assign(":=", actSetValue, actOverride)
	p.try(word(s, "("), 0, actBeginList)
	p.try(word(s, "in"), 0, actIn)
}

func (lx *lexer) matchIdentities(p *pick, s string, act action) {
	if n := word(s, "identities"); n > 0 {
		b := blanks(s[n:])
		if e := word(s[n+b:], "="); e > 0 {
			p.try(n, b+e, act)
		}
	}
}

// matchCond tries what is common to the initial state and the rules with
// conditions: names before = and in.
func (lx *lexer) matchCond(p *pick, s string) {
	n := varName(s)
	if n == 0 {
		return
	}
	lx.matchIdentities(p, s, actIdentities)
	b := blanks(s[n:])
	if e := word(s[n+b:], "="); e > 0 {
		name := s[:n]
		if name == "peer" || name == "xattrs" {
			b2 := blanks(s[n+b+e:])
			if o := word(s[n+b+e+b2:], "("); o > 0 {
				p.try(n, b+e+b2+o, actCondListID)
			}
		}
		switch name {
		case "priority":
			p.try(n, b+e, actPriority)
		case "flags":
			p.try(n, b+e, actFlags)
		}
		p.try(n, b+e, actCond)
	}
	if b > 0 {
		if i := word(s[n+b:], "in"); i > 0 {
			b2 := blanks(s[n+b+i:])
			if o := word(s[n+b+i+b2:], "("); o > 0 {
				p.try(n, b+i+b2+o, actCond)
			}
		}
	}
}

var ruleWords = map[state][]string{
	sUnix: {
		"listen", "accept", "connect", "getopt", "setopt", "shutdown", "create",
		"getattr", "setattr", "bind", "send", "receive", "read", "write",
	},
	sMqueue: {"create", "open", "delete", "getattr", "setattr", "read", "write"},
	sDBus:   {"bind", "eavesdrop", "send", "receive", "read", "write"},
	sSignal: {"send", "receive", "read", "write"},
	sPtrace: {"trace", "readby", "tracedby", "read", "write"},
	sMount:  nil,
}

func init() { ruleWords[sNetwork] = ruleWords[sUnix] }

func (lx *lexer) matchCondRule(p *pick, s string, st state) {
	lx.matchCond(p, s)
	for _, w := range ruleWords[st] {
		p.try(word(s, w), 0, actKeyword)
	}
	if st == sMount {
		p.try(word(s, "->"), 0, actArrow)
	} else {
		p.try(word(s, "("), 0, actPushList)
		for _, w := range [...]string{"r", "w", "rw", "wr"} {
			if n := word(s, w); n > 0 && n < len(s) && (isSpace(s[n]) || s[n] == ',') {
				p.try(n, 1, actMode)
			}
		}
	}
	p.try(noAssign(s), 0, actID)
	p.try(label(s), 0, actID)
	p.try(quoted(s), 0, actID)
	p.try(word(s, ","), 0, actEndOfRule)
}

func (lx *lexer) matchExpr(p *pick, s string, st state) {
	p.try(variable(s, '@'), 0, actSetVar)
	p.try(variable(s, '$'), 0, actBoolVar)
	if st == sExpr {
		p.try(word(s, "{"), 0, actPopOpen)
	} else {
		p.try(word(s, ","), 0, actAssignComma)
		if s[0] == '#' {
			p.try(restOfLine(s), 0, actPopComment)
		}
		p.try(word(s, "\\\n"), 0, skip)
		p.try(newline(s), 0, popSkip)
	}
	p.try(word(s, "("), 0, actOpenParen)
	p.try(word(s, ")"), 0, actCloseParen)
	for _, w := range [...]string{"and", "or", "not", "defined"} {
		p.try(word(s, w), 0, actKeyword)
	}
	for _, w := range [...]string{"==", "!=", "in", ">", ">=", "<", "<="} {
		p.try(word(s, w), 0, actOp)
	}
	p.try(noAssign(s), 0, actID)
	p.try(label(s), 0, actID)
	p.try(quoted(s), 0, actID)
}

func (lx *lexer) matchInclude(p *pick, s string) {
	if s[0] == '#' {
		line := restOfLine(s)
		if line == 0 {
			return
		}
		if word(s, "#include") > 0 {
			const n = len("#include")
			if e := ifExists(s[n:]); e > 0 && n+e < len(s) && isBlank(s[n+e]) {
				p.try(n+e, line-n-e, actHashIncExists)
			}
			p.try(n, line-n, actHashInc)
		}
		p.try(line, 0, actComment)
		return
	}
	const n = len("include")
	if word(s, "include") > 0 && n < len(s) && isBlank(s[n]) {
		if e := ifExists(s[n:]); e > 0 && n+e < len(s) && isBlank(s[n+e]) {
			p.try(n+e, 1, actIncExists)
		}
		p.try(n, 1, actInc)
	}
}

// ifExists matches blanks, if, blanks, exists.
func ifExists(s string) int {
	b := blanks(s)
	if b == 0 || word(s[b:], "if") == 0 {
		return 0
	}
	i := b + 2
	if b = blanks(s[i:]); b == 0 || word(s[i+b:], "exists") == 0 {
		return 0
	}
	return i + b + len("exists")
}

func (lx *lexer) matchInitial(p *pick, s string) {
	c := s[0]
	if isAlpha(c) {
		lx.matchCond(p, s)
		lx.matchInclude(p, s)
		if n := word(s, "all"); n > 0 && n < len(s) && !isAlnum(s[n]) && s[n] != '_' {
			p.try(n, 1, actAll)
		}
		if n := modes(s); n > 0 {
			p.try(n, 1, actMode)
		}
		if n := word(s, "hat"); n > 0 {
			p.try(n+blanks(s[n:]), 0, actHat)
		}
		if n := word(s, "profile"); n > 0 {
			p.try(n+blanks(s[n:]), 0, actProfile)
		}
		p.try(varName(s), 0, actWord)
		return
	}
	switch c {
	case '$':
		if n := variable(s, '$'); n > 0 {
			b := blanks(s[n:])
			rest := s[n+b:]
			for _, op := range [...]string{"=", "+=", "?=", ":="} {
				if e := word(rest, op); e > 0 {
					p.try(n, b+e, actBoolAssign)
				}
			}
			p.try(n, 0, actBoolVar)
		}
	case '@':
		p.try(variable(s, '@'), 0, actSetVar)
		p.try(label(s), 0, actID)
	case '#':
		lx.matchInclude(p, s)
	case '^':
		p.try(1, 0, actCaret)
	case '-':
		p.try(word(s, "->"), 0, actArrowID)
	case '=':
		p.try(1, 0, actAssign)
	case '+':
		p.try(1, 0, actPlus)
		p.try(word(s, "+="), 0, actAddAssign)
	case '?':
		p.try(word(s, "?="), 0, actCondAssign)
	case ':':
		p.try(word(s, ":="), 0, actOverAssign)
		p.try(label(s), 0, actID)
		p.try(1, 0, actColon)
	case '{':
		p.try(1, 0, actOpen)
	case '}':
		p.try(1, 0, actClose)
	case '/', '&':
		p.try(label(s), 0, actID)
	case '"':
		p.try(quotedLabel(s), 0, actID)
	case '(':
		p.try(1, 0, actPushList)
	case ',':
		p.try(1, 0, actEndOfRule)
	}
}
