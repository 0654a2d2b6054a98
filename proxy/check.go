package proxy

import (
	"io"
	"log/slog"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/oneprom/oneprom/promqlx/bounds"
	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/proxy/ruler"
)

// CheckConfig says what is wrong with a configuration file and the files of rules that it
// names, and what the configuration hides of what these write.
func CheckConfig(o Options, file string) error {
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	return ruler.Check(cfg, parserOf(o))
}

// CheckRules prints what is wrong with files of rules, and returns an error if anything
// is.
func CheckRules(o Options, w io.Writer, files []string) error {
	return ruler.CheckFiles(w, parserOf(o), files)
}

func parserOf(o Options) parser.Parser {
	return bounds.Parser(parser.NewParser(parseFeatures(o.EnableFeatures, slog.New(slog.DiscardHandler)).parser))
}
