// SPDX-License-Identifier: Apache-2.0

package probe

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Claims are what a policy claims to block.
type Claims struct {
	// Policy is its name, for messages.
	Policy string `json:"policy"`
	// Blocks names the probes that must not be open.
	Blocks []string `json:"blocks"`
}

func (c Claims) claims(name string) bool { return slices.Contains(c.Blocks, name) }

// controlText is what was measured: every probe in four configurations.
//
//go:embed control.json
var controlText []byte

// Control is a recording of all probes in one configuration.
type Control struct {
	// Runtime, Kernel and Profile tell what was measured.
	Runtime string `json:"runtime"`
	Kernel  string `json:"kernel"`
	Profile string `json:"profile"`
	// Unconfined is root with all capabilities, no filter and no mask, in a
	// mount and pid namespace; Docker is Docker's default configuration;
	// Strict is that without capabilities, with a read-only root, and with no
	// socket but those of the unix family.
	Unconfined map[string]Recorded `json:"unconfined"`
	Docker     map[string]Recorded `json:"docker"`
	Strict     map[string]Recorded `json:"strict"`
}

// Recorded is one measured result.
type Recorded struct {
	Outcome Outcome `json:"outcome"`
	Errno   string  `json:"errno,omitempty"`
	Layer   Layer   `json:"layer,omitempty"`
}

var control = func() Control {
	var c Control
	// The tests read the same bytes and fail on what does not parse.
	_ = json.Unmarshal(controlText, &c)
	return c
}()

// controlOf is the outcome under Docker's defaults, and whether any recorded
// configuration blocks what another leaves open.
func controlOf(name string) (Outcome, bool) {
	somewhere := func(o Outcome) bool {
		return control.Unconfined[name].Outcome == o || control.Docker[name].Outcome == o || control.Strict[name].Outcome == o
	}
	return control.Docker[name].Outcome, somewhere(Blocked) && somewhere(Open)
}

// DefaultClaims are the claims of the policy default: it blocks at least what
// Docker's default configuration was measured to block.
func DefaultClaims() Claims {
	return Claims{Policy: "default", Blocks: recordedBlocked(control.Docker)}
}

// StrictClaims are the claims of the policy strict.
func StrictClaims() Claims {
	return Claims{Policy: "strict", Blocks: recordedBlocked(control.Strict)}
}

func recordedBlocked(m map[string]Recorded) []string {
	var list []string
	for _, p := range table {
		if m[p.name].Outcome == Blocked {
			list = append(list, p.name)
		}
	}
	return list
}

// maxClaims bounds the text of claims.
const maxClaims = 64 << 10

// ParseClaims reads "default", "strict", "none", a list of probe names
// separated by commas, or the JSON form of [Claims].
func ParseClaims(text string) (Claims, error) {
	text = strings.TrimSpace(text)
	switch text {
	case "", "none":
		return Claims{Policy: "none"}, nil
	case "default":
		return DefaultClaims(), nil
	case "strict":
		return StrictClaims(), nil
	}
	if len(text) > maxClaims {
		return Claims{}, fmt.Errorf("parse claims: longer than %d bytes", maxClaims)
	}
	c := Claims{Policy: "given"}
	if strings.HasPrefix(text, "{") {
		d := json.NewDecoder(strings.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&c); err != nil {
			return Claims{}, fmt.Errorf("parse claims: %w", err)
		}
		if d.More() {
			return Claims{}, errors.New("parse claims: more than one value")
		}
	} else {
		c.Blocks = strings.Split(text, ",")
	}
	var errs []error
	for _, name := range c.Blocks {
		if _, ok := byName(name); !ok {
			errs = append(errs, fmt.Errorf("parse claims: no probe is named %q", name))
		}
	}
	return c, errors.Join(errs...)
}
