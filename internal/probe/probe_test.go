// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == ServeArgs[0] && os.Args[2] == ServeArgs[1] {
		os.Exit(Serve(os.Args[3:], os.Stdin, os.Stdout))
	}
	if len(os.Args) > 1 && os.Args[1] == "probe-as-container" {
		os.Exit(containerMain())
	}
	os.Exit(m.Run())
}
