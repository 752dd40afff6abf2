//go:build linux || darwin

package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// fakeTools puts a java and a mvn that do as told on an otherwise empty PATH, and an empty cache beside them. "" leaves
// a tool out. The fake mvn notes its calls in the returned file.
func fakeTools(t *testing.T, javaVersion, mvn string) (calls string) {
	t.Helper()
	bin := t.TempDir()
	calls = filepath.Join(bin, "calls")
	write := func(name, script string) {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\nPATH=/usr/bin:/bin\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if javaVersion != "" {
		write("java", "echo 'openjdk version \""+javaVersion+"\" 2025-04-15' >&2\n")
	}
	if mvn != "" {
		write("mvn", "echo \"$@\" >>'"+calls+"'\n"+mvn)
	}
	t.Setenv("PATH", bin)
	t.Setenv("JAVA_HOME", "")
	t.Setenv("KINESIS_PULSAR_CACHE", t.TempDir())
	return calls
}

const (
	// deliver does as dependency:copy-dependencies: a jar appears in the folder that was named.
	deliver = `for a; do case $a in -DoutputDirectory=*) echo jar >"${a#*=}/a.jar";; esac; done`
	noNet   = `echo '[ERROR] Unknown host repo.example'; exit 1`
)

var oneJar = &jarSet{name: "one", title: "one jar", artifacts: []string{"g:a:1"}}

func lines(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

func TestUnavailableSaysWhatToInstall(t *testing.T) {
	for _, c := range []struct {
		name, java, mvn, home string
		want                  []string
	}{
		{"no java", "", deliver, "", []string{"no java on the PATH", "install Java 17"}},
		{"old java", "11.0.2", deliver, "", []string{"is Java 11", "Java 17 or newer"}},
		{"very old java", "1.8.0_362", deliver, "", []string{"is Java 8", "Java 17 or newer"}},
		{"JAVA_HOME leads nowhere", "17.0.1", deliver, "/nowhere", []string{"JAVA_HOME is /nowhere", "no bin/java"}},
		{"no maven", "17.0.1", "", "", []string{"no mvn on the PATH", "install Maven"}},
		{"all there", "17.0.1", deliver, "", nil},
		{"newer java", "25", deliver, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			fakeTools(t, c.java, c.mvn)
			t.Setenv("JAVA_HOME", c.home)
			why := Unavailable()
			if (why == "") != (c.want == nil) {
				t.Fatalf("answer %q", why)
			}
			for _, want := range c.want {
				if !strings.Contains(why, want) {
					t.Errorf("%q does not say %q", why, want)
				}
			}
		})
	}
}

func TestJavaMajorReadsEveryForm(t *testing.T) {
	for text, want := range map[string]int{
		`openjdk version "17.0.15" 2025-04-15`:       17,
		`java version "1.8.0_362"`:                   8,
		`openjdk version "21" 2023-09-19 LTS`:        21,
		"NOTE: picked up\nopenjdk version \"26-ea\"": 26,
		"Unable to locate a Java Runtime":            0,
	} {
		if got := javaMajor(text); got != want {
			t.Errorf("javaMajor(%q) = %d, want %d", text, got, want)
		}
	}
}

func TestSecondFetchDownloadsNothing(t *testing.T) {
	calls := fakeTools(t, "17.0.1", deliver)
	var told []string
	for range 2 {
		lib, err := oneJar.fetch(t.Context(), func(text string) { told = append(told, text) })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(lib.dir, "lib", "a.jar")); err != nil {
			t.Error(err)
		}
	}
	if n := lines(t, calls); n != 1 || len(told) != 1 {
		t.Errorf("Maven ran %d times, and %d downloads were told of: want one each", n, len(told))
	}

	// Once the jars are there, Maven may go.
	t.Setenv("PATH", filepath.Dir(calls))
	if err := os.Remove(filepath.Join(filepath.Dir(calls), "mvn")); err != nil {
		t.Fatal(err)
	}
	if _, err := oneJar.fetch(t.Context(), nil); err != nil {
		t.Errorf("without Maven: %v", err)
	}
	// Other jars are another entry.
	if _, err := (&jarSet{name: "one", artifacts: []string{"g:a:2"}}).fetch(t.Context(), nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("other jars came out of the same entry: %v", err)
	}
}

func TestFetchAtOnceDownloadsOnce(t *testing.T) {
	calls := fakeTools(t, "17.0.1", "sleep 0.3\n"+deliver)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if _, err := oneJar.fetch(t.Context(), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := lines(t, calls); n != 1 {
		t.Errorf("Maven ran %d times, want once", n)
	}
}

func TestFailedFetchLeavesNothingAndSaysWhy(t *testing.T) {
	calls := fakeTools(t, "17.0.1", deliver+"\n"+noNet)
	dir, err := oneJar.dir()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := oneJar.fetch(t.Context(), nil)
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "Unknown host repo.example") {
			t.Errorf("error %v, want ErrUnavailable with what Maven said", err)
		}
		if left, _ := filepath.Glob(dir + "*"); len(left) != 1 || left[0] != dir+".lock" {
			t.Errorf("left behind: %v", left)
		}
	}
	if n := lines(t, calls); n != 2 {
		t.Errorf("Maven ran %d times, want twice: a failure is not remembered", n)
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	fakeTools(t, "17.0.1", "sleep 600")
	ctx, cancel := contextWhen(t, func() bool {
		dir, _ := oneJar.dir()
		_, err := os.Stat(filepath.Join(dir+".partial", "maven.log"))
		return err == nil
	})
	defer cancel()
	if _, err := oneJar.fetch(ctx, nil); !errors.Is(err, errStop) {
		t.Errorf("error %v, want the cause of the cancelled context", err)
	}
}

func TestPOMNamesWhatWasAskedFor(t *testing.T) {
	flat := (&jarSet{name: "x", artifacts: []string{"g:a:1:linux-x86_64"}, flat: true}).pom()
	for _, want := range []string{"<groupId>g</groupId><artifactId>a</artifactId><version>1</version><classifier>linux-x86_64</classifier>", "<exclusions>"} {
		if !strings.Contains(flat, want) {
			t.Errorf("no %s in\n%s", want, flat)
		}
	}
	if deep := oneJar.pom(); strings.Contains(deep, "exclusion") {
		t.Errorf("a set that is not flat lost its dependencies:\n%s", deep)
	}
	if n := len(pulsarJars.artifacts); n < 100 {
		t.Errorf("%d Pulsar artifacts", n)
	}
	for _, artifact := range pulsarJars.artifacts {
		if n := strings.Count(artifact, ":"); n != 2 && n != 3 {
			t.Errorf("artifact %q", artifact)
		}
	}
}

// aTest stands in for a test that is skipped or failed.
type aTest struct {
	testing.TB
	skipped, failed string
}

type ended struct{}

func (a *aTest) Helper()          {}
func (a *aTest) Skip(args ...any) { a.skipped = fmt.Sprint(args...); panic(ended{}) }
func (a *aTest) Fatal(args ...any) {
	a.failed = fmt.Sprint(args...)
	panic(ended{})
}
func (a *aTest) Fatalf(format string, args ...any) { a.Fatal(fmt.Sprintf(format, args...)) }

func TestMissingServiceSkipsUnlessRequired(t *testing.T) {
	for _, c := range []struct{ name, java, mvn string }{
		{"no java", "", deliver},
		{"no network", "17.0.1", noNet},
	} {
		t.Run(c.name, func(t *testing.T) {
			fakeTools(t, c.java, c.mvn)
			for _, required := range []string{"", "1"} {
				t.Setenv(requireVariable, required)
				a := &aTest{TB: t}
				func() {
					defer func() {
						if r := recover(); r != nil && r != (ended{}) {
							panic(r)
						}
					}()
					DynamoDB(a)
				}()
				if (a.failed != "") != (required != "") || (a.skipped != "") == (required != "") {
					t.Errorf("required=%q: skipped %q, failed %q", required, a.skipped, a.failed)
				}
			}
		})
	}
}
