// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/shield/shim/internal/build"
)

// TestBlobIsCurrent holds the embedded blob to the sources: by the recorded hash
// always, byte for byte when the compiler that made it is at hand.
func TestBlobIsCurrent(t *testing.T) {
	sum, err := os.ReadFile("shim.sum")
	if err != nil {
		t.Fatal(err)
	}
	sources, err := build.SourceHash("src")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"sources " + sources, fmt.Sprintf("blob %x", sha256.Sum256(blob))} {
		if !strings.Contains(string(sum), line+"\n") {
			t.Errorf("shim.sum does not say %q: run go generate ./shield/shim", line)
		}
	}
	oracle.Tool(t, "cc", "apt: gcc")
	again, err := build.Build("src")
	if err != nil {
		t.Fatal(err)
	}
	_, version, _ := build.Compiler()
	if !strings.Contains(string(sum), "compiler "+version+"\n") {
		t.Logf("built with %s, the blob with another compiler: bytes are not compared", version)
		return
	}
	if !bytes.Equal(again, blob) {
		t.Error("the sources build to other bytes than shim.bin")
	}
}
