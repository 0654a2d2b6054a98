# make            build, vet and test
# make demo       a world of small Prometheus with oneprom in front of it
# make help       every target

GO       ?= go
BUILD    ?= .build
FUZZTIME ?= 60s
DIFFTIME ?= 1h
DIFFSEED ?= $(shell date +%s)

# The demo, and most tests, need no clients of clouds, which take minutes to build.
SLIM := -tags remove_all_sd

.PHONY: all build demo demo-check test e2e fuzz fuzz-differential bench lint help

all: lint build test

build: ## the binary, as ./oneprom
	CGO_ENABLED=0 $(GO) build -trimpath -o oneprom .

demo: ## run oneprom in front of an embedded world; Ctrl-C ends it
	$(GO) run $(SLIM) . demo

demo-check: ## start the demo as a user would and interrupt it after its table
	./.ci/demo-check

test: ## the fast tests, with the race detector
	$(GO) test -race $(SLIM) -shuffle=on -timeout 30m ./...
	$(GO) test .

e2e: ## the slow tests: upstream's PromQL tests over HTTP, worlds of real Prometheus, promtool
	$(GO) test -tags e2e -timeout 60m -count=1 -v ./proxy/e2e/...

fuzz: ## every fuzz test for FUZZTIME
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "== $$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; \
	done

fuzz-differential: ## random questions to random worlds for DIFFTIME, against one Prometheus
	$(GO) test ./proxy/e2e/differential -run '^TestDifferential$$' -v -count=1 -timeout 0 -differential.duration=$(DIFFTIME) -differential.seed=$(DIFFSEED)

bench: ## ratios against one Prometheus that has all the data, and the benchmarks of packages
	$(GO) test -run '^$$' -bench . -benchmem ./dedup ./promqlx ./servergroup/...
	ONEPROM_BENCH=1 $(GO) test -tags e2e -timeout 60m -count=1 -v -run '^TestBench' ./proxy/e2e

lint: ## gofmt and vet
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'run gofmt -w on these files'; exit 1; }
	$(GO) vet -stdmethods=false ./...
	$(GO) vet -stdmethods=false -tags e2e ./proxy/e2e/...

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "make %-18s %s\n", $$1, $$2}' Makefile
