// SPDX-License-Identifier: Apache-2.0

// Package denial is one request that a mechanism denied, or would have denied
// if it had been told to enforce, in words that all mechanisms share.
//
// Package audit makes denials of kernel records; package explain finds their
// causes. Values do not change once made.
package denial

import "time"

// Mechanism is what decided.
type Mechanism string

// The mechanisms.
const (
	AppArmor Mechanism = "apparmor"
	SELinux  Mechanism = "selinux"
	Seccomp  Mechanism = "seccomp"
	Landlock Mechanism = "landlock"
	DAC      Mechanism = "dac"
)

// Outcome is what became of the request.
type Outcome uint8

// The outcomes.
const (
	Denied  Outcome = iota
	Allowed         // not allowed by policy, but permissive or in complain mode
	Audited         // allowed by policy, and logged because policy asks for it
)

func (o Outcome) String() string { return [...]string{"denied", "allowed", "audited"}[o%3] }

// MarshalText makes the outcome readable in JSON.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// Denial is one request.
type Denial struct {
	Mechanism Mechanism `json:"mechanism"`
	Outcome   Outcome   `json:"outcome"`
	// Subject is the label, profile or filter of the process.
	Subject string `json:"subject,omitempty"`
	// Object is what it was about: a path, an address, a capability, a system
	// call. ObjectLabel is the object's label, Class its kind.
	Object      string `json:"object,omitempty"`
	ObjectLabel string `json:"object_label,omitempty"`
	Class       string `json:"class,omitempty"`
	// Operation is the kernel's name of what the process did; Access are the
	// permissions that it lacked.
	Operation string   `json:"operation,omitempty"`
	Access    []string `json:"access,omitempty"`

	PID     int    `json:"pid,omitempty"`
	Command string `json:"command,omitempty"`
	// Time and Serial identify the record: events with both equal belong
	// together.
	Time   time.Time `json:"time,omitzero"`
	Serial uint64    `json:"serial,omitempty"`
	// Raw is the record as it was logged.
	Raw string `json:"raw,omitempty"`
}
