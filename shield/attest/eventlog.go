// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
)

// maxEvents bounds an event log.
const maxEvents = 100_000

// ReplayEventLog computes RTMR0 to RTMR3 from a confidential-computing event log
// (CCEL): what the registers hold if the log is complete and true. It returns the
// number of events. The log ends at the first event of type 0xffffffff, or with zeros.
// Source: TCG PC Client Platform Firmware Profile, section 10 (crypto-agile log);
// UEFI 2.10, section 38.4 (measurement register indices).
func ReplayEventLog(log []byte) (rtmr [4][48]byte, events int, err error) {
	const sha384, unused = 0x0c, 0xffffffff
	r := &reader{b: log}
	// The first event is in the old form and lists the hash algorithms.
	r.take("event_log.header", 28)
	spec := &reader{b: r.take("event_log.header", int(min(r.u32("event_log.header.size"), maxEvidence)))}
	if r.err != nil {
		return rtmr, 0, r.err
	}
	if sig := spec.take("event_log.header", 16); !bytes.Equal(sig, []byte("Spec ID Event03\x00")) {
		return rtmr, 0, bad("event_log.header", "is not that of a crypto-agile log")
	}
	spec.take("event_log.header", 8) // platform class and versions
	sizes := map[uint16]int{}
	for range min(spec.u32("event_log.header.algorithms"), 16) {
		id := spec.u16("event_log.header.algorithms")
		sizes[id] = int(spec.u16("event_log.header.algorithms"))
	}
	if spec.err != nil {
		return rtmr, 0, spec.err
	}
	if sizes[sha384] != 48 {
		return rtmr, 0, bad("event_log.header", "has no SHA-384")
	}
	for len(r.rest()) >= 4 && !allZero(r.rest()) {
		field := fmt.Sprintf("event_log.event[%d]", events)
		index, kind := r.u32(field), r.u32(field)
		if kind == unused || index == unused {
			break
		}
		count := r.u32(field)
		if r.err == nil && count > 16 {
			return rtmr, events, bad(field, "has %d digests", count)
		}
		var digest []byte
		for range count {
			id := r.u16(field)
			n, ok := sizes[id]
			if r.err == nil && !ok {
				return rtmr, events, bad(field, "has a digest of unknown algorithm %#x", id)
			}
			if d := r.take(field, n); id == sha384 {
				digest = d
			}
		}
		r.take(field, int(min(r.u32(field), maxEvidence<<4)))
		if r.err != nil {
			return rtmr, events, r.err
		}
		if events++; events > maxEvents {
			return rtmr, events, bad("event_log", "has more than %d events", maxEvents)
		}
		// Index 0 is MRTD, which the TDX module computes; 1 to 4 are the RTMRs.
		const noAction = 3
		if index == 0 || kind == noAction {
			continue
		}
		if index > 4 {
			return rtmr, events, bad(field, "is for measurement register %d", index)
		}
		if digest == nil {
			return rtmr, events, bad(field, "has no SHA-384 digest")
		}
		reg := &rtmr[index-1]
		*reg = sha512.Sum384(append(bytes.Clone(reg[:]), digest...))
	}
	return rtmr, events, nil
}

// judgeEventLog compares a log with the registers of a verified quote.
func (p *Policy) judgeEventLog(c *Claims) error {
	if p.EventLog == nil {
		return nil
	}
	if c.TDX == nil {
		return bad("event_log", "was given for %s evidence, which has no runtime measurement registers", c.TEE)
	}
	rtmr, n, err := ReplayEventLog(p.EventLog)
	if err != nil {
		return err
	}
	for i := range rtmr {
		if got := hex.EncodeToString(rtmr[i][:]); got != c.TDX.RTMR[i] {
			return bad(fmt.Sprintf("body.rtmr%d", i), "is %s, the event log gives %s", c.TDX.RTMR[i], got)
		}
	}
	c.TDX.Events = n
	return nil
}
