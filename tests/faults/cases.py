"""Every input and fault that the tool must survive: what comes of it, and which tests prove it.

`python tools/fault_table.py` prints this; `test_fault_cases.py` holds that each number is here once, that
every test named here exists, and sends every file of `tools/make_fault_files.py` through a real swap.
"""

from __future__ import annotations

from dataclasses import dataclass

RIGHT, REFUSED, RESUMES = "comes out right", "refused by design", "goes on"

_FILES = "tests/faults/test_fault_cases.py::test_a_file_through_the_whole_swap"
_FACES = "tests/faults/test_fault_cases.py"
_TRIP = "tests/video/test_video_roundtrip.py"
_OUT = "tests/video/test_video_outputs.py"
_MUX = "tests/video/test_video_remux.py"
_NOT = "tests/video/test_video_refusals.py"
_READ = "tests/weights/test_reading.py"


@dataclass(frozen=True)
class FaultCase:
    """One number of the list."""

    number: int
    what: str
    verdict: str
    """:data:`RIGHT`, :data:`REFUSED` or :data:`RESUMES`."""
    how: str
    """In a few words, what exactly comes out, or why it is refused."""
    exits: tuple[int, ...]
    """Exit codes that are right; of several, each for the variant that ``how`` names."""
    proofs: tuple[str, ...]
    """Tests, as ``file::function``."""


def _case(
    number: int, what: str, verdict: str, how: str, exits: int | tuple[int, ...], *proofs: str
) -> FaultCase:
    return FaultCase(number, what, verdict, how, exits if isinstance(exits, tuple) else (exits,), proofs)


# ruff: noqa: E501 - a row a case
# fmt: off
CASES: tuple[FaultCase, ...] = (
    _case(1, "variable frame rate", RIGHT, "every time kept", 0, _FILES, f"{_TRIP}::test_times_and_tags_survive"),
    _case(2, "rotation tag", RIGHT, "faces found upright, tag kept", 0, _FILES, f"{_FACES}::test_a_rotated_face_is_swapped"),
    _case(3, "odd sizes", RIGHT, "size kept", 0, _FILES, f"{_TRIP}::test_odd_size_in_420_becomes_444"),
    _case(4, "pixels that are not square", RIGHT, "aspect ratio kept", 0, _FILES),
    _case(5, "interlaced", RIGHT, "deinterlaced, one picture a frame", 0, _FILES, f"{_TRIP}::test_interlaced_becomes_progressive"),
    _case(6, "HDR10", RIGHT, "10 bits and colour tags kept", 0, _FILES, f"{_TRIP}::test_times_and_tags_survive"),
    _case(7, "4:2:2 and 4:4:4", RIGHT, "pixel format kept", 0, _FILES, f"{_TRIP}::test_samples_reach_the_encoder_untouched"),
    _case(8, "full range", RIGHT, "range kept", 0, _FILES),
    _case(9, "ProRes 4444 with alpha", RIGHT, "a warning says that alpha is lost in H.264", 0, _FILES),
    _case(10, "VP9 with alpha", RIGHT, "alpha kept in WebM", 0, _FILES, f"{_TRIP}::test_alpha_of_webm_is_kept"),
    _case(11, "negative start, B-frames", RIGHT, "moved to 0, distances kept", 0, _FILES, f"{_TRIP}::test_negative_start_is_moved_to_zero"),
    _case(12, "start at 1000 s", RIGHT, "a broadcast clock becomes 0, distances kept", 0, _FILES, f"{_TRIP}::test_broadcast_clock_starts_at_zero"),
    _case(13, "edit list", RIGHT, "the 32 frames that show", 0, _FILES, f"{_MUX}::test_edit_list_of_the_target"),
    _case(14, "no duration; bare H.264", RIGHT, "all frames", 0, _FILES),
    _case(15, "sound tracks, subtitles, chapters, attachment", RIGHT, "all kept", 0, _FILES, f"{_MUX}::test_everything_else_is_copied"),
    _case(16, "cover art", REFUSED, "sound with a cover is no video; beside a video it stays", 3, _FILES, f"{_MUX}::test_cover_art_is_not_video"),
    _case(17, "two video streams", RIGHT, "the first is swapped", 0, _FILES),
    _case(18, "GIF", RIGHT, "read and written, times kept", 0, _FILES, f"{_OUT}::test_gif_keeps_times_and_colors"),
    _case(19, "folder with a missing number", REFUSED, "the number is named", 3, _FILES, f"{_OUT}::test_folder_of_images_in_and_out"),
    _case(20, "8K", RIGHT, "memory stays bounded", 0, f"{_FACES}::test_8k_in_bounded_memory"),
    _case(21, "one frame; a still", RIGHT, "one frame; a still", 0, _FILES),
    _case(22, "1 by 1 pixel", RIGHT, "passes", 0, _FILES),
    _case(23, "size change in mid-file", RIGHT, "scaled to the first size, with a warning", 0, _FILES, "tests/faces/test_finder.py::test_a_change_of_size_mid_clip"),
    _case(24, "1000 frames a second", RIGHT, "every time kept", 0, _FILES),
    _case(25, "no moov atom", REFUSED, "not a video", 3, _FILES, f"{_NOT}::test_index_missing"),
    _case(26, "truncated", REFUSED, "breaks off before its end", 3, _FILES, f"{_NOT}::test_file_that_breaks_off"),
    _case(27, "corrupt packets", RIGHT, "what decodes, the damage counted in a warning", 0, _FILES, f"{_NOT}::test_damaged_packets_are_counted"),
    _case(28, "zero bytes", REFUSED, "empty", 3, _FILES, f"{_NOT}::test_missing_and_empty"),
    _case(29, "audio only", REFUSED, "no video stream", 3, _FILES, f"{_NOT}::test_sound_alone"),
    _case(30, "2147483647 frames in the header", RIGHT, "its 50 frames", 0, _FILES),
    _case(31, "a gap of 24 hours", RIGHT, "the gap kept, not filled", 0, _FILES),
    _case(32, "8192 by 8192 pictures in few bytes", REFUSED, "above the bound of pixels", 3, _FILES, f"{_NOT}::test_pictures_too_large"),
    _case(33, "PNG bomb", REFUSED, "above the bound of pixels", 3, "tests/video/test_video_images.py::test_png_bomb_is_refused_unopened"),
    _case(34, "a list named .mp4", REFUSED, "not a video; nothing else opened", 3, _FILES, f"{_NOT}::test_lists_that_open_other_files"),
    _case(35, "metadata that is not UTF-8", RIGHT, "done", 0, _FILES),
    _case(36, "awkward names", RIGHT, "only names", 0, _FILES, f"{_NOT}::test_awkward_names_are_only_names"),
    _case(37, "../ in a list", REFUSED, "leads out of the folder", 2, f"{_FACES}::test_a_list_that_leads_out", "tests/test_batch.py::test_lists_that_make_no_sense_are_refused"),
    _case(38, "unwritable folder", REFUSED, "found before the work", 4, f"{_FACES}::test_outputs_are_judged_before_the_work", f"{_OUT}::test_unwritable_folder"),
    _case(39, "disk full", REFUSED, "no file at the output; finished work kept", 4, f"{_OUT}::test_full_disk_is_an_output_error", f"{_OUT}::test_full_disk_while_joining", "tests/test_journal.py::test_a_full_disk_is_exit_4_and_the_journal_goes_on", "tests/provenance/test_marking.py::test_a_full_disk_is_exit_4_and_leaves_what_was_there", "tests/cli/test_cli_app.py::test_a_full_disk_below_stdout_is_4"),
    _case(40, "output is the input", REFUSED, "by name, symbolic and hard link", 2, f"{_FACES}::test_outputs_are_judged_before_the_work", f"{_OUT}::test_wrong_outputs_are_found_before_the_work"),
    _case(41, "output exists", REFUSED, "unless --force", 2, f"{_FACES}::test_outputs_are_judged_before_the_work", f"{_OUT}::test_wrong_outputs_are_found_before_the_work"),
    _case(42, "read-only target", RIGHT, "its folder is not written to", 0, f"{_FACES}::test_a_read_only_target"),
    _case(43, "kill -9", RESUMES, "equal frames, at most one chunk redone (tools/kill_test.py)", 0, "tests/test_runs.py::test_killed_runs_go_on_to_the_frames_of_one_that_was_not", "tests/test_journal.py::test_kill_at_random_moments_loses_at_most_the_chunk_being_made"),
    _case(44, "Ctrl-C, once and twice", RESUMES, "130, resumable; twice at once", 130, "tests/cli/test_cli_app.py::test_ctrl_c_is_130_and_twice_is_at_once", "tests/test_runs.py::test_an_interrupted_run_refuses_other_settings_and_goes_on_without_inversion"),
    _case(45, "out of memory", REFUSED, "one line with the remedy", 1, "tests/cli/test_cli_app.py::test_out_of_memory", f"{_NOT}::test_no_memory_is_not_taken_for_damage"),
    _case(46, "two runs, one cache", RIGHT, "both right; one output has one run", (0, 2), "tests/test_cache.py::test_several_runs_share_one_cache", "tests/weights/test_store.py::test_eight_runs_at_once_fetch_once", "tests/test_journal.py::test_two_runs_in_one_folder_are_refused"),
    _case(47, "flipped bit in the cache", RIGHT, "found and made again", 0, "tests/test_cache.py::test_every_flipped_bit_is_found_or_harmless_and_the_entry_made_again", "tests/test_journal.py::test_every_flipped_byte_of_the_journal_costs_one_chunk_at_most"),
    _case(48, "clock off by years", RIGHT, "clocks play no part; certificates fit", 0, "tests/test_journal.py::test_clocks_play_no_part", "tests/provenance/test_signing.py::test_a_clock_that_jumps_gives_certificates_valid_at_its_time", "tests/test_cache.py::test_a_time_in_the_future_keeps_no_entry_for_ever"),
    _case(49, "no face", RIGHT, "frames pass, a warning", 0, _FILES),
    _case(50, "thirty faces", RIGHT, "found; the chosen ones swapped", 0, "tests/faces/test_detect.py::test_thirty_faces_are_thirty"),
    _case(51, "profile", RIGHT, "swapped where found, else passes with a warning", 0, f"{_FACES}::test_a_profile_and_a_tiny_face"),
    _case(52, "a face of 12 px", RIGHT, "left alone, a warning", 0, f"{_FACES}::test_a_profile_and_a_tiny_face", "tests/faces/test_finder.py::test_small_faces_are_left_alone"),
    _case(53, "occluded", RIGHT, "what is in front stays", 0, "tests/compositing/test_occlusion.py::test_fingers_and_things_in_front_are_found"),
    _case(54, "source without a face", REFUSED, "no face", 3, f"{_FACES}::test_sources_without_one_face"),
    _case(55, "source with two faces", REFUSED, "unless FILE#NUMBER says which", 3, f"{_FACES}::test_sources_without_one_face"),
    _case(56, "odd stills", RIGHT, "as they are shown; a cut one is refused", (0, 3), f"{_FACES}::test_stills_of_every_sort_as_sources", "tests/video/test_video_images.py::test_truncated_and_false_images"),
    _case(57, "truncated weights", REFUSED, "nothing runs", 5, f"{_FACES}::test_evil_weights", f"{_READ}::test_truncated"),
    _case(58, "weights with another hash", REFUSED, "not parsed", 5, f"{_FACES}::test_evil_weights", f"{_READ}::test_hash_is_checked_before_anything_is_parsed"),
    _case(59, ".pt that runs code", REFUSED, "nothing runs", 5, f"{_FACES}::test_evil_weights", f"{_READ}::test_torch_file_with_code"),
    _case(60, ".pkl that runs code", REFUSED, "nothing runs", 5, f"{_FACES}::test_evil_weights", f"{_READ}::test_pickle_with_code"),
    _case(61, "ONNX data outside", REFUSED, "nothing outside is read", 5, f"{_FACES}::test_evil_weights", "tests/weights/test_onnx_paths.py::test_paths_that_are_refused"),
    _case(62, "zip bomb .pt", REFUSED, "by the sum of its sizes", 5, f"{_READ}::test_zip_bomb_is_not_opened"),
)
# fmt: on
