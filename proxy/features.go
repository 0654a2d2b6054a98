package proxy

import (
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
)

// features is what --enable-feature switches on.
type features struct {
	parser             parser.Options
	delayedNameRemoval bool
	perStepStats       bool
	startTimestamps    bool
	typeAndUnitLabels  bool
	search             bool     // the API, which servers need not have
	names              []string // those enabled that concern PromQL
}

// searchFeature is the one feature that concerns the API and not PromQL.
const searchFeature = "search-api"

// featureTable holds the features of Prometheus that concern queries and rules. A nil
// entry is one that is always on by now, there as here.
var featureTable = map[string]func(*features){
	"concurrent-rule-eval":            nil,
	"promql-binop-fill-modifiers":     func(f *features) { f.parser.EnableBinopFillModifiers = true },
	"promql-delayed-name-removal":     func(f *features) { f.delayedNameRemoval = true },
	"promql-duration-expr":            nil,
	"promql-experimental-functions":   func(f *features) { f.parser.EnableExperimentalFunctions = true },
	"promql-extended-range-selectors": func(f *features) { f.parser.EnableExtendedRangeSelectors = true },
	"promql-per-step-stats":           func(f *features) { f.perStepStats = true },
	searchFeature:                     func(f *features) { f.search = true },
	"type-and-unit-labels":            func(f *features) { f.typeAndUnitLabels = true },
	"use-start-timestamps":            func(f *features) { f.startTimestamps = true },
}

// allSyntax is what format_query and parse_query understand: tools send them
// whatever their users write.
var allSyntax = parser.Options{
	EnableExperimentalFunctions:  true,
	ExperimentalDurationExpr:     true,
	EnableExtendedRangeSelectors: true,
	EnableBinopFillModifiers:     true,
}

func featureNames() string {
	return strings.Join(slices.Sorted(maps.Keys(featureTable)), ", ")
}

// parseFeatures reads the lists given with --enable-feature. An unknown name is
// a warning only, as in Prometheus, so that one command line fits both.
func parseFeatures(lists []string, logger *slog.Logger) features {
	f := features{parser: parser.Options{ExperimentalDurationExpr: true}}
	for _, list := range lists {
		for name := range strings.SplitSeq(list, ",") {
			enable, known := featureTable[name]
			switch {
			case !known:
				logger.Warn("unknown option for --enable-feature", "option", name,
					"hint", "features of Prometheus that concern scraping or storage mean nothing to oneprom; known are: "+featureNames())
			case enable == nil:
				logger.Warn("this option for --enable-feature is always on and can be left out", "option", name)
			default:
				enable(&f)
				if name != searchFeature {
					f.names = append(f.names, name)
				}
				logger.Info("feature enabled", "option", name)
			}
		}
	}
	return f
}
