// Checks files of Prometheus rules with the parser that Prometheus and `promtool check rules` use.
package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

func main() {
	found := 0
	for _, file := range os.Args[1:] {
		promql := parser.NewParser(parser.Options{})
		_, errors := rulefmt.ParseFile(file, false, model.UTF8Validation, promql, slog.Default())
		for _, err := range errors {
			fmt.Println(err)
			found = 1
		}
	}
	os.Exit(found)
}
