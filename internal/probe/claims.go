// SPDX-License-Identifier: Apache-2.0

package probe

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Claims are what a policy claims to block.
type Claims struct {
	// Policy is its name, for messages.
	Policy string `json:"policy"`
	// Blocks names the probes that must not be open.
	Blocks []string `json:"blocks"`
}

func (c Claims) claims(name string) bool { return slices.Contains(c.Blocks, name) }

// controlText is what was measured: every probe in three configurations, on
// more than one kernel.
//
//go:embed control.json
var controlText []byte

// Control is a recording of all probes on one kernel.
type Control struct {
	// Name, Runtime and Profile tell what was measured.
	Name    string `json:"name"`
	Kernel  string `json:"kernel"`
	Runtime string `json:"runtime"`
	Profile string `json:"profile"`
	// Unconfined is root with all capabilities, no filter and no mask, in the
	// host's namespaces; Docker is Docker's default configuration; Strict is
	// that without capabilities, with a read-only root, and with no socket but
	// those of the unix family.
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

// measuredControls are the recordings.
func measuredControls() []Control {
	var list []Control
	// The tests read the same bytes and fail on what does not parse.
	_ = json.Unmarshal(controlText, &list)
	return list
}

// controls are parsed when they are first asked for: most commands never ask.
var controls = sync.OnceValue(measuredControls)

func docker(c Control) map[string]Recorded { return c.Docker }
func strict(c Control) map[string]Recorded { return c.Strict }

// recorded is the outcome of a probe in one configuration: open when any
// kernel had it open, blocked when none had and some blocked it.
func recorded(name string, configuration func(Control) map[string]Recorded) Outcome {
	outcome := NotApplicable
	for _, c := range controls() {
		switch configuration(c)[name].Outcome {
		case Open:
			return Open
		case Blocked:
			outcome = Blocked
		}
	}
	return outcome
}

// controlOf is the outcome under Docker's defaults, and whether any recorded
// configuration blocks what another leaves open.
func controlOf(name string) (Outcome, bool) {
	seen := map[Outcome]bool{}
	for _, c := range controls() {
		for _, m := range []map[string]Recorded{c.Unconfined, c.Docker, c.Strict} {
			seen[m[name].Outcome] = true
		}
	}
	return recorded(name, docker), seen[Blocked] && seen[Open]
}

// defaultClaims are the claims of the policy default: it blocks at least what
// Docker's default configuration was measured to block.
func defaultClaims() Claims { return Claims{Policy: "default", Blocks: recordedBlocked(docker)} }

// strictClaims are the claims of the policy strict.
func strictClaims() Claims { return Claims{Policy: "strict", Blocks: recordedBlocked(strict)} }

func recordedBlocked(configuration func(Control) map[string]Recorded) []string {
	var list []string
	for _, p := range table {
		if recorded(p.name, configuration) == Blocked {
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
		return defaultClaims(), nil
	case "strict":
		return strictClaims(), nil
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
