// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"testing"

	"github.com/palisade-sec/palisade/internal/freestanding"
	"github.com/palisade-sec/palisade/internal/oracle"
)

// TestBlobIsCurrent holds the embedded blob to the sources: by the recorded hash
// always, byte for byte when the compiler that made it is at hand.
func TestBlobIsCurrent(t *testing.T) {
	note, err := freestanding.Shim().Check(blob)
	if err != nil {
		t.Error(err)
	}
	if note != "" {
		t.Log(note)
	}
	oracle.Tool(t, "cc", "apt: gcc")
}
