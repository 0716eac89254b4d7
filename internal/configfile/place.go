// SPDX-License-Identifier: Apache-2.0

package configfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	toml "github.com/pelletier/go-toml/v2"
)

// DockerDaemon is the configuration of Docker's daemon.
const DockerDaemon = "/etc/docker/daemon.json"

// Position is ":LINE:COLUMN" of an error in a text, where the parser tells.
func Position(text []byte, err error) string {
	var inJSON *json.SyntaxError
	var inTOML *toml.DecodeError
	switch {
	case errors.As(err, &inJSON) && inJSON.Offset > 0 && inJSON.Offset <= int64(len(text)):
		before := text[:inJSON.Offset-1]
		return fmt.Sprintf(":%d:%d", bytes.Count(before, []byte("\n"))+1, len(before)-bytes.LastIndexByte(before, '\n'))
	case errors.As(err, &inTOML):
		row, column := inTOML.Position()
		return fmt.Sprintf(":%d:%d", row, column)
	}
	return ""
}
