// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
)

// Binary gives evidence as [Verify] takes it: what is text in hexadecimal or base64
// is decoded, everything else is returned as it is. No character of such a text is
// free, so a change of one is a change of the evidence, or an error: one case of
// digits, lines of one length, nothing around them but a line end.
func Binary(evidence []byte) ([]byte, error) {
	for _, c := range evidence {
		if c >= 0x80 || c < ' ' && c != '\n' && c != '\r' {
			return evidence, nil
		}
	}
	if len(evidence) < 64 || evidence[0] == '{' {
		return evidence, nil
	}
	text := string(evidence)
	end := "\n"
	if strings.Contains(text, "\r") {
		end = "\r\n"
	}
	lines := strings.Split(strings.TrimSuffix(text, end), end)
	for i, l := range lines {
		if i < len(lines)-1 && len(l) != len(lines[0]) || len(l) > len(lines[0]) || l == "" || strings.ContainsAny(l, "\r\n") {
			return nil, bad("evidence", "is text, but line %d is not as the ones before it", i+1)
		}
	}
	text = strings.Join(lines, "")
	digits := strings.TrimPrefix(text, "0x")
	if b, err := hex.DecodeString(digits); err == nil {
		if digits != strings.ToLower(digits) && digits != strings.ToUpper(digits) {
			return nil, bad("evidence", "is hexadecimal with digits of both cases")
		}
		return b, nil
	}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if b, err := enc.Strict().DecodeString(text); err == nil && !bytes.ContainsAny(evidence, " ") {
			return b, nil
		}
	}
	return nil, bad("evidence", "is text, but neither hexadecimal nor base64 of a quote or report")
}
