package lint

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

var valueRules = []Rule{
	{
		Name: "wrong-type", Level: Error, Title: "a text where Benthos wants a number or a boolean",
		Why:     "Benthos' own lint does not look at the type of a number in quotes; the start then fails with a message that does not name the field. (Fields of `kinesis_pulsar` take both.)",
		Instead: "Write the number without quotes.",
		Bad:     badInput + "pipeline: { threads: \"4\" }\n" + badOutput,
		check: func(c *Config, found report) {
			for _, v := range c.values {
				s, ok := text(v.node)
				if !ok || v.node.Tag == "" {
					continue
				}
				switch v.spec.Type {
				case "int":
					if v.node.Tag == "!!str" {
						found(v.node, v.path, "%s; write a number%s", shown(v.node), unquoted(s, func() error { _, err := strconv.ParseInt(s, 0, 64); return err }))
					} else if v.node.Tag == "!!float" && !wholeNumber(s) {
						found(v.node, v.path, "%s would be cut to a whole number; write one", s)
					}
				case "float":
					if v.node.Tag == "!!str" {
						found(v.node, v.path, "%s; write a number%s", shown(v.node), unquoted(s, func() error { _, err := strconv.ParseFloat(s, 64); return err }))
					}
				case "bool":
					if v.node.Tag != "!!bool" {
						found(v.node, v.path, "%s; write true or false%s", shown(v.node), unquoted(s, func() error { _, err := strconv.ParseBool(s); return err }))
					}
				}
			}
		},
	},
	{
		Name: "no-duration", Level: Error, Title: "a time that is none",
		Why:     "Durations are texts for Benthos, and its lint looks at none of them: `5`, `5 seconds` and `1d` pass, and fail at the start.",
		Instead: "Write a number with a unit: `500ms`, `5s`, `1m30s`, `24h`.",
		Bad:     badInput + badOutput + "shutdown_timeout: 30\n",
		check: func(c *Config, found report) {
			for _, v := range c.values {
				s, ok := text(v.node)
				if !ok || s == "" || v.spec.Type != "string" || v.spec.Kind != "scalar" || strings.Contains(s, "${!") || !isDuration(v.spec) ||
					strings.HasSuffix(v.path, "generate.interval") && (strings.HasPrefix(s, "@") || strings.Contains(s, "*")) { // a cron expression
					continue
				}
				if _, err := time.ParseDuration(s); err != nil {
					found(v.node, v.path, "%.80q is no time; write a number with a unit, such as 500ms, 5s or 1m30s", s)
				}
			}
		},
	},
}

func wholeNumber(s string) bool {
	f, err := strconv.ParseFloat(s, 64)
	return err == nil && f == float64(int64(f))
}

func shown(n *yaml.Node) string {
	if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
		return fmt.Sprintf("%.80q in quotes is a text", n.Value)
	}
	return fmt.Sprintf("%.80q is a text", n.Value)
}

// unquoted tells how to write the value, if it is right but for its quotes.
func unquoted(s string, parse func() error) string {
	if parse() != nil {
		return ""
	}
	return ": " + s + " without quotes"
}

var durationName = regexp.MustCompile(`(^|_)(timeout|period|interval|delay|duration|linger|ttl|backoff|max_elapsed_time)$`)

// isDuration guesses which of Benthos' text fields hold a time, since their description does not say so: those whose default
// is one, and those that are called like one and have no other default.
func isDuration(f field) bool {
	byDefault, isText := f.Default.(string)
	if isText && byDefault != "" {
		_, err := time.ParseDuration(byDefault)
		return err == nil && byDefault != "0"
	}
	return durationName.MatchString(f.Name) && (isText || f.Default == nil)
}
