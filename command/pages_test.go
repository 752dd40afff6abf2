package command_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What the pages tell people to type is taken by the command line: each command and flag of ours in them exists. Every command has
// a --help, which names its flags.
func TestTheCommandsOfThePagesExist(t *testing.T) {
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	typed := regexp.MustCompile("(?m)(?:^ *|`)(?:\\./)?kinesis-pulsar ([a-z][a-z-]*)([^`#\n]*)")
	flag := regexp.MustCompile(`(?:^| )(--?[a-z][a-z.-]*)`)
	help := map[string]string{}
	seen := 0
	for _, page := range append(pages, "../README.md", "../CHANGELOG.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range typed.FindAllStringSubmatch(string(text), -1) {
			command := m[1]
			if _, asked := help[command]; !asked {
				help[command] = helpOf(t, command)
			}
			if help[command] == "" {
				t.Errorf("%s: there is no command %s: %s", filepath.Base(page), command, m[0])
				continue
			}
			seen++
			for _, f := range flag.FindAllStringSubmatch(m[2], -1) {
				if !regexp.MustCompile(`(?m)(^|[ ,])` + regexp.QuoteMeta(f[1]) + `\b`).MatchString(help[command]) {
					t.Errorf("%s: %s has no %s: %s", filepath.Base(page), command, f[1], m[0])
				}
			}
		}
	}
	if seen < 15 {
		t.Errorf("only %d commands were found", seen)
	}
}

// helpOf is the help of a command, "" when there is none of that name.
func helpOf(t *testing.T, command string) string {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = writer
	code, _, _ := run(t, command, "--help")
	os.Stdout = stdout
	_ = writer.Close()
	buffer := make([]byte, 1<<16)
	n, _ := reader.Read(buffer)
	_ = reader.Close()
	text := string(buffer[:n])
	if code != 0 || !strings.Contains(text, "USAGE") || !strings.Contains(text, command) {
		return ""
	}
	return text
}
