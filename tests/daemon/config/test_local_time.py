"""Time zones and holidays: what is configured reaches pipelines and trainings, and what cannot be used is said clearly."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import pytest

from daemon.config.holiday_file import MOST_BYTES, HolidayFileError, read_holidays
from daemon.config.load import Config, ConfigError, load
from daemon.config.local_time import holidays_of, local_time_spec
from daemon.wiring import pipeline_settings, training_config
from features.local_time import UTC
from model.spec.job import JobSpec
from model.spec.local_time import LocalTimeSpec
from testkit.hostile.documents import CALENDAR


def written(folder: Path, text: str) -> Path:
    path = folder / "dwcp.toml"
    path.write_text(text)
    return path


def calendar(folder: Path, *lines: str) -> Path:
    """Write a calendar file with one event of these lines."""
    path = folder / "days.ics"
    path.write_text("\r\n".join(("BEGIN:VCALENDAR", "BEGIN:VEVENT", *lines, "END:VEVENT", "END:VCALENDAR", "")))
    return path


def test_utc_without_holidays_is_the_default() -> None:
    """Nothing has to be configured, and no library of holidays is asked."""
    assert pipeline_settings(Config()).local_time == UTC
    assert training_config(Config()).local_time == LocalTimeSpec()


def test_what_is_configured_reaches_pipelines_and_trainings(tmp_path: Path) -> None:
    """Both by the same days: a training computes the profile that the daemon computes, also in a process of its own."""
    text = '[local_time]\nzone = "Europe/Berlin"\nholidays = "DE-BY"\nzones = {us = "America/New_York", ap = "Asia/Tokyo"}\n'
    config = load(written(tmp_path, text + 'region_holidays = {us = "US", sea = ""}\n'))
    local_time, spec = pipeline_settings(config).local_time, training_config(config).local_time
    assert spec.local_time() == local_time
    assert msgspec.json.decode(msgspec.json.encode(spec), type=LocalTimeSpec) == spec
    day = (date(2026, 1, 6) - date(1970, 1, 1)).days
    assert day in local_time.default.holidays, "Epiphany, in Bavaria"
    regions = local_time.regions
    assert set(regions) == {"us", "ap", "sea"}
    assert day not in regions["us"].holidays, "not in the United States"
    assert day in regions["ap"].holidays, "a region without holidays of its own has the default ones"
    assert regions["sea"].holidays == (), "unless it is said that it has none"
    assert regions["sea"].zone == local_time.default.zone
    noon_s = 1_782_907_200.0  # 2026-07-01 12:00 UTC
    offsets = [
        zone.offset_s[int(np.searchsorted(zone.since_s, noon_s, side="right")) - 1] / 3600.0
        for zone in (local_time.default.zone, regions["us"].zone, regions["ap"].zone)
    ]
    assert offsets == [2.0, -4.0, 9.0]


def test_a_job_carries_the_days() -> None:
    """What the child reads is what the daemon wrote, and a calendar that a job names without its days is refused."""
    spec = local_time_spec("Europe/Berlin", {}, "DE", {"us": "US-CA"})
    job = JobSpec(
        job_id="j", version="v20260101_000000", created_at_s=1.5, reason="first", snapshot="/s", candidate="/c", local_time=spec
    )  # fmt: skip
    assert JobSpec.from_json(job.to_json()) == job
    with pytest.raises(ValueError, match="calendars has no days of DE"):
        JobSpec.from_json(job.to_json().replace(b'"holidays": "DE"', b'"holidays": "DE-BE"'))
    with pytest.raises(ValueError, match="'Europe/Nowhere' is not a time zone"):
        JobSpec.from_json(job.to_json().replace(b"Europe/Berlin", b"Europe/Nowhere"))


REFUSED = {
    "a zone that does not exist": ("zone = 'Europe/Berln'", r"local_time.zone: .*'Europe/Berln' is not .*; did you mean Europe/Berlin"),
    "a city": ("zone = 'new york'", r"did you mean America/New_York\?"),
    "a continent": ("zone = 'Europe'", r"'Europe' is not a time zone"),
    "a path": ("zone = '/etc/localtime'", r"'/etc/localtime' is not a time zone"),
    "an offset": ("zone = '+02:00'", r"'\+02:00' is not a time zone; use a name of the IANA database, such as Europe/Berlin"),
    "a region's zone": ("zones = {eu = 'Mars'}", r"local_time.zones.eu: .*'Mars' is not a time zone"),
    "a country": ("holidays = 'ZZ'", r"local_time.holidays: .*'ZZ' is not a country with known holidays"),
    "a country in small letters": ("holidays = 'de'", r"did you mean DE\?"),
    "a part of a country": ("region_holidays = {eu = 'DE-XX'}", r"local_time.region_holidays.eu: .*use one of .*DE-BY"),
    "an unknown key": ("zonne = 'UTC'", r"local_time.zonne: there is no such setting; did you mean zone"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_name_that_does_not_exist_is_refused(tmp_path: Path, case: str) -> None:
    """With the setting, and with what was probably meant."""
    text, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        load(written(tmp_path, f"[local_time]\n{text}\n"))


def test_check_config_reads_the_calendar(tmp_path: Path, cli: Callable[..., tuple[int, str, str]]) -> None:
    """A file that is missing or damaged is found before the daemon starts, with its name and what to do."""
    path = tmp_path / "days.ics"
    config = written(tmp_path, f"[local_time]\nholidays = '{path}'\n[http]\nenabled = false\n")
    code, _, error = cli("check-config", "--config", str(config))
    assert code == 3
    assert f"local_time: {path}: cannot be read" in error.replace("\n", "")
    path.write_bytes(CALENDAR)
    code, output, _ = cli("check-config", "--config", str(config))
    assert code == 0
    assert "holidays" in output


def test_days_of_a_calendar_file(tmp_path: Path) -> None:
    """By hand: events of several days, rules, exceptions, folded lines; what was cancelled is left out."""
    path = tmp_path / "days.ics"
    path.write_bytes(CALENDAR)
    days = read_holidays(path)
    assert [day for day in days if day.month == 3] == [date(2026, 3, 2), date(2026, 3, 3), date(2028, 3, 2), date(2028, 3, 3)]
    assert [day for day in days if day.year == 2026 and day.month == 11] == [date(2026, 11, 26)], "the fourth Thursday"
    assert days[-1] == date(2100, 11, 25)
    assert holidays_of(str(path)) == days
    both = ("DTSTART;VALUE=DATE:20260501", "END:VEVENT", "BEGIN:VEVENT", "STATUS:CANCELLED", "DTSTART;VALUE=DATE:20260601")
    assert read_holidays(calendar(tmp_path, *both)) == (date(2026, 5, 1),)
    alarm = ("DTSTART;VALUE=DATE:20260501", "BEGIN:VALARM", "DTSTART:20260101T000000Z", "END:VALARM", "RDATE;VALUE=DATE:20260508,20260509")
    assert read_holidays(calendar(tmp_path, *alarm)) == (date(2026, 5, 1), date(2026, 5, 8), date(2026, 5, 9))


NO_HOLIDAYS = {
    "an hour": (("DTSTART:20260501T090000Z",), r"days.ics, line 3: DTSTART:20260501T090000Z is not a day, .*only all-day events"),
    "a day that is none": (("DTSTART;VALUE=DATE:20260231",), r"line 3: 20260231 is not a day of the calendar"),
    "no day": (("SUMMARY:x",), r"line 2: the event has no DTSTART"),
    "an end before the begin": (("DTSTART;VALUE=DATE:20260501", "DTEND;VALUE=DATE:20260401"), "line 2: the event ends before it begins"),
    "ten years": (("DTSTART;VALUE=DATE:20260501", "DTEND;VALUE=DATE:20360501"), "lasts for more than a year"),
    "a daily rule": (
        ("DTSTART;VALUE=DATE:20260501", "RRULE:FREQ=DAILY"),
        r"line 2: the rule 'FREQ=DAILY' is not of whole days",
    ),
    "a rule of seconds": (("DTSTART;VALUE=DATE:20260501", "RRULE:FREQ=YEARLY;BYSECOND=1"), "is not of whole days"),
    "a rule without sense": (("DTSTART;VALUE=DATE:20260501", "RRULE:FREQ=YEARLY;BYMONTH=x"), r"cannot be read"),
    "a duration of hours": (("DTSTART;VALUE=DATE:20260501", "DURATION:PT3H"), r"DURATION 'PT3H' is not a number of days"),
    "only days of long ago": (("DTSTART;VALUE=DATE:19000501",), r"has no events from 1990 to 2100"),
    "a broken nesting": (("END:VALARM",), r"line 3: END:VALARM ends nothing that has begun"),
}


@pytest.mark.parametrize("case", NO_HOLIDAYS)
def test_an_event_that_is_no_holiday_is_refused(tmp_path: Path, case: str) -> None:
    """With the file, the line and the reason: a day that is missed would be learnt as a workday."""
    lines, message = NO_HOLIDAYS[case]
    with pytest.raises(HolidayFileError, match=message):
        read_holidays(calendar(tmp_path, *lines))


def test_a_file_that_is_no_calendar_is_refused(tmp_path: Path) -> None:
    """Another kind of file, one that is cut off, one that is too large, and one with too many days."""
    path = tmp_path / "days.ics"
    contents = {
        b"": "it does not begin with BEGIN:VCALENDAR",
        b"a,b\n1,2\n": "it does not begin with BEGIN:VCALENDAR",
        b"\xff\xfe\x00": "is not a calendar file",
        CALENDAR[:100]: "ends within VEVENT; copy the file again",
        b" " * (MOST_BYTES + 1): "more than 1,048,576 bytes",
    }
    for content, message in contents.items():
        path.write_bytes(content)
        with pytest.raises(HolidayFileError, match=message):
            read_holidays(path)
    every_day = ("DTSTART;VALUE=DATE:19900101", "DTEND;VALUE=DATE:19910101", "RRULE:FREQ=YEARLY")
    with pytest.raises(HolidayFileError, match="more than 20,000 days"):
        read_holidays(calendar(tmp_path, *every_day))
    with pytest.raises(HolidayFileError, match="cannot be read"):
        read_holidays(tmp_path)
