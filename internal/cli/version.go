// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
)

// Version is set by the release build with -ldflags "-X …/internal/cli.Version=v1.2.3".
var Version = "devel"

type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersionCommand(e *answer.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of palisade",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := versionInfo{Version: Version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			if bi, ok := debug.ReadBuildInfo(); ok {
				for _, s := range bi.Settings {
					if s.Key == "vcs.revision" {
						v.Revision = s.Value
					}
				}
			}
			if e.JSON {
				return e.PrintJSON(v)
			}
			fmt.Fprintf(e.Stdout, "palisade %s %s %s\n", v.Version, v.Platform, v.Go)
			return nil
		},
	}
}
