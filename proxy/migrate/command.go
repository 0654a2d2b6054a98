package migrate

import (
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kingpin/v2"

	"github.com/oneprom/oneprom/proxy/config"
)

// Command is a migration as a command line says it.
type Command struct {
	File   string
	Output string // "" is stdout
}

// AddFlags defines the flags and the argument of a command.
func (c *Command) AddFlags(cmd *kingpin.CmdClause) {
	cmd.Arg("file", "Path of the configuration file of promxy, or of Prometheus.").Required().StringVar(&c.File)
	cmd.Flag("output", "Write to this file, which must not be there yet, instead of standard output.").Short('o').PlaceHolder("<path>").StringVar(&c.Output)
}

// Run migrates. What is written may need a hand still: then the error says where.
func (c *Command) Run(stdout io.Writer) error {
	data, err := config.ReadFile(c.File)
	if err != nil {
		return err
	}
	text, err := File(data, c.File)
	if err != nil {
		return err
	}
	name := c.Output
	if name == "" {
		name = "the output"
		_, err = stdout.Write(text)
	} else {
		err = writeNew(name, text)
	}
	if err != nil {
		return err
	}
	if _, err := config.Parse(text, name); err != nil {
		return fmt.Errorf("what was written needs a hand still:\n%w", err)
	}
	return nil
}

// writeNew writes a file that only the user may read, as it may have passwords.
func writeNew(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
