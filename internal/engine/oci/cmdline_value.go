// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// check returns the canonical spelling of a value, or what is wrong with it.
func (o *option) check(value string) (canonical, why string) {
	if strings.IndexByte(value, 0) >= 0 {
		return "", "the value has a null byte"
	}
	if o.NonEmpty && value == "" {
		return "", "the value is empty"
	}
	switch o.Type {
	case boolValue:
		b, err := strconv.ParseBool(value)
		if err != nil {
			return "", fmt.Sprintf("value %s, want true or false", quote(value))
		}
		return strconv.FormatBool(b), ""
	case optionalBool:
		return strconv.FormatBool(value != "false" && value != "no"), ""
	case intValue:
		return o.checkInt(value)
	case durationValue:
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 {
			return "", fmt.Sprintf("value %s, want a duration like 5s", quote(value))
		}
		return d.String(), ""
	case pairValue:
		if !strings.Contains(value, "=") {
			return "", fmt.Sprintf("value %s, want NAME=VALUE", quote(value))
		}
		return value, ""
	}
	if len(o.Enum) == 0 {
		return value, ""
	}
	if i := slices.IndexFunc(o.Enum, func(s string) bool { return s == value || o.Fold && strings.EqualFold(s, value) }); i >= 0 {
		return o.Enum[i], ""
	}
	var want []string
	for _, s := range o.Enum {
		if s != "" {
			want = append(want, s)
		}
	}
	return "", fmt.Sprintf("value %s, want %s", quote(value), strings.Join(want, ", "))
}

// checkInt reads a number by the rules of package flag: with the prefixes of Go
// where that is what the runtime reads by, which the table says by Fold.
func (o *option) checkInt(value string) (canonical, why string) {
	base := 10
	if o.Fold {
		base = 0
	}
	n, err := strconv.ParseInt(value, base, 64)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && (n < o.Min || o.Max != 0 && n > o.Max):
		return "", fmt.Sprintf("value %s is out of range", quote(value))
	case err != nil:
		return "", fmt.Sprintf("value %s, want a number", quote(value))
	}
	return strconv.FormatInt(n, 10), ""
}
