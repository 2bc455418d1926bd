"""The measurements of ``hccnet explain-check``, pass by pass over the patients; what they mean is worked out elsewhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from HCCNetLib.commands.progress import Progress
from HCCNetLib.evaluation.faithfulness import Burden, Curves, MapFigures, known, mean_of
from HCCNetLib.explanation import METHODS, exam_maps, make_explainer
from HCCNetLib.explanation.faithfulness import (
    WITHIN_MM,
    LandmarkCells,
    LesionPlace,
    Localisation,
    compare,
    landmark_cells,
    localise,
    spearman,
)
from HCCNetLib.explanation.measurement import Explained, explain
from HCCNetLib.explanation.perturbation import Order, Perturbation, area, cells_to_voxels, removal_order, with_noise
from HCCNetLib.explanation.randomisation import RandomisedBundle
from HCCNetLib.inference import Predictor
from HCCNetLib.inference.cache import PreparedCache
from HCCNetLib.models import HCCNet, ModelConfig
from HCCNetLib.preprocessing import PreparedExam
from HCCNetLib.records import Patient, Refusal
from HCCNetLib.synthetic.truth import Truth
from HCCNetLib.training.start import scale_weights

DRAWS = 3  # of random weights, and of random orders
HEAD_DRAWS = 3
NOISE_DRAWS = 2
FEWEST_EXAMS = 3  # for a correlation over exams

ROLLOUT, GRADIENT = "rollout", "gradient-weighted"
_Cells = dict[str, LandmarkCells]  # by method
_Tally = dict[tuple[int, str, str], list[float | None]]  # number of the patient, method, name of the figure

# What a generator is for: each kind of draw has its own sequence of numbers.
_TIES, _ORDERS, _NOISE, _WEIGHTS, _HEAD = range(5)


@dataclass
class Subject:
    """A patient up to the landmark.

    Args:
        patient: as known at the landmark.
        label: whether the diagnosis came within the horizon; None where nobody knows.
        place: of the lesion at the landmark, of a patient with the diagnosis where the truth is known.
        cells: method → evidence on the landmark exam.
        rows: method → figures.
    """

    patient: Patient
    label: bool | None
    place: LesionPlace | None = None
    cells: dict[str, LandmarkCells] = field(default_factory=dict)
    rows: dict[str, MapFigures] = field(default_factory=dict)


class Check:
    """Measures one bundle's maps on patients.

    Args:
        predictor: with the bundle.
        cache: of prepared exams.
        methods: keys of ``METHODS``.
        truth: of the phantom; None for a cohort whose lesions nobody has drawn.
        seed: of everything that is drawn.
        progress: is told how far the work is.
    """

    def __init__(
        self,
        predictor: Predictor,
        cache: PreparedCache,
        methods: Sequence[str],
        truth: Truth | None,
        seed: int,
        progress: Progress,
    ) -> None:
        self.predictor, self.methods, self.seed = predictor, tuple(methods), seed
        self.subjects: list[Subject] = []
        self.refused: dict[str, Refusal] = {}
        self.burdens: list[Burden] = []
        self.attention_kinds = (ROLLOUT, GRADIENT)
        self.curves: dict[str, list[Curves]] = {key: [] for key in methods}
        self.seconds = dict.fromkeys(methods, 0.0)
        self.encoding_seconds = 0.0
        self._cache, self._truth, self._progress = cache, truth, progress

    def explain(self, subjects: Sequence[Subject]) -> None:
        """The bundle's own maps, compared with the truth where it is known; a refused patient does not stop the others."""
        for done, subject in enumerate(subjects):
            self._progress("explaining patients", done, len(subjects))
            try:
                self._explain(subject)
            except Refusal as refusal:
                if refusal.code in ("not_finite", "out_of_memory", "cannot_write"):
                    raise  # not the patient's fault: the next one would fare alike
                self.refused[subject.patient.patient_id] = refusal
            else:
                self.subjects.append(subject)
        self._progress("explaining patients", len(subjects), len(subjects))

    def randomise(self) -> None:
        """The same with networks that have learned nothing, and with those of which only the backbone has."""
        tally: _Tally = defaultdict(list)
        for draw in range(DRAWS):
            self._compare(self._by_random_networks(draw, keeps_backbone=False), draw, tally)
        for draw in range(HEAD_DRAWS):
            for number, maps in enumerate(self._by_random_networks(draw, keeps_backbone=True)):
                for key, cells in self.subjects[number].cells.items():
                    same = compare(cells, maps[key], self._generator(_TIES, DRAWS + draw, number, key))
                    tally[number, key, "like_random_head"].append(same.correlation)
                    tally[number, key, "magnitude_random_head"].append(same.magnitude)
        for (number, key, name), values in tally.items():
            setattr(self.subjects[number].rows[key], name, mean_of(values))

    def perturb(self, count: int) -> None:
        """Deletion and insertion on the first ``count`` patients."""
        subjects = self.subjects[:count]
        for number, subject in enumerate(subjects):
            self._progress("taking detail away", number, len(subjects))
            prepared = self._prepared(subject)
            observers = {key: Perturbation(self._orders(number, key, prepared[-1])) for key in self.methods}
            self.predictor.predict_prepared(subject.patient, prepared, list(observers.values()))
            for key, observer in observers.items():
                curves, row = observer.curves(), subject.rows[key]
                self.curves[key].append(_against_random(curves))
                row.deletion_difference, row.insertion_difference = _area_above_random(curves)
                moved = np.abs(curves - curves[..., :1])
                row.deletion_moved, row.insertion_moved = _area_above_random(moved)

    def disturb(self, count: int) -> None:
        """Maps of exams with a little noise, on the first ``count`` patients."""
        subjects = self.subjects[:count]
        for number, subject in enumerate(subjects):
            tally: dict[str, list[float | None]] = {key: [] for key in self.methods}
            prepared, config = self._prepared(subject), self.predictor.bundle.description.preprocessing
            for draw in range(NOISE_DRAWS):
                self._progress("adding noise", NOISE_DRAWS * number + draw, NOISE_DRAWS * len(subjects))
                rng = self._generator(_NOISE, draw, number)
                noisy = [with_noise(exam, config, rng) for exam in prepared]
                for key, cells in self._landmark_cells(self.predictor, subject, noisy).items():
                    before, row = subject.cells[key], subject.rows[key]
                    tally[key].append(compare(before, cells, self._generator(_TIES, draw, number, key)).correlation)
                    if before.peak_mm is not None and cells.peak_mm is not None:
                        row.peak_shifts_mm += (float(np.linalg.norm(np.subtract(before.peak_mm, cells.peak_mm))),)
            for key, correlations in tally.items():
                subject.rows[key].like_with_noise = mean_of(correlations)

    def _explain(self, subject: Subject) -> None:
        """One patient's maps, and their place in the truth."""
        patient, landmark = subject.patient, subject.patient.landmark
        prepared = self._prepared(subject)
        burden: list[float] = []
        if self._truth is not None:
            burden = [self._truth.size(patient.patient_id, exam.exam_id) for exam in patient.exams]
        if self._truth is not None and subject.label:
            truth = self._truth.exam(patient.patient_id, landmark.exam_id, prepared[-1].source_grid)
            subject.place = LesionPlace.find(truth.lesion, truth.liver, prepared[-1])
        explained = explain(self.predictor, patient, prepared, self.methods, time_encoding=True)
        for key, evidence in explained.evidence.items():
            row = MapFigures(patient.patient_id, key, landmark.exam_id, subject.label, burden[-1] if burden else None)
            row.agreement = evidence.agreement
            # One scale for the patient; channels are summed, and so their own maps have no part in the scale.
            maps = exam_maps(replace(evidence, cells=evidence.total[:, None]), prepared)[-1]
            if maps.peak is not None:
                row.peak_value, row.peak_members = maps.peak.value, maps.peak.members
            if subject.place is not None:
                _locate(row, localise(maps, subject.place), subject.place)
            subject.cells[key], subject.rows[key] = landmark_cells(evidence, prepared[-1]), row
            self.seconds[key] += explained.seconds[key]
        self.encoding_seconds += explained.encoding_seconds
        # Networks that read the landmark alone attend to nothing else.
        if len(burden) >= FEWEST_EXAMS and self.predictor.bundle.description.history == "all":
            self.burdens.append(_burden(explained, burden))

    def _compare(self, maps: Sequence[_Cells], draw: int, tally: _Tally) -> None:
        """Every patient's maps with those of random networks on the same patient and on another one."""
        count = len(maps)
        # Another stranger in each draw, and never oneself.
        shift = 1 + draw % (count - 1) if count > 1 else 0
        for number, subject in enumerate(self.subjects):
            for key, cells in subject.cells.items():
                rng, random = self._generator(_TIES, draw, number, key), maps[number][key]
                same = compare(cells, random, rng)
                tally[number, key, "like_randomised"].append(same.correlation)
                tally[number, key, "magnitude_randomised"].append(same.magnitude)
                tally[number, key, "overlap_randomised"].append(same.overlap)
                if shift:
                    other = compare(cells, maps[(number + shift) % count][key], rng)
                    tally[number, key, "like_other_patient"].append(other.correlation)
                    tally[number, key, "magnitude_other_patient"].append(other.magnitude)
                    tally[number, key, "overlap_other_patient"].append(other.overlap)
                if subject.place is not None:
                    tally[number, key, "hit_randomised"].append(_hit(random, subject.place))

    def _by_random_networks(self, draw: int, keeps_backbone: bool) -> list[_Cells]:
        """All patients' landmark exams as networks with one draw of weights explain them."""
        kind = _HEAD if keeps_backbone else _WEIGHTS
        bundle = RandomisedBundle.of(self.predictor.bundle, fresh_network, (self.seed, kind, draw), keeps_backbone)
        random, found = Predictor(bundle, self.predictor.device.type), []
        stage = f"random heads, draw {draw + 1}" if keeps_backbone else f"random networks, draw {draw + 1}"
        for done, subject in enumerate(self.subjects):
            self._progress(stage, done, len(self.subjects))
            found.append(self._landmark_cells(random, subject, self._prepared(subject)))
        return found

    def _landmark_cells(self, predictor: Predictor, subject: Subject, prepared: Sequence[PreparedExam]) -> _Cells:
        evidence = explain(predictor, subject.patient, prepared, self.methods).evidence
        return {key: landmark_cells(one, prepared[-1]) for key, one in evidence.items()}

    def _orders(self, number: int, key: str, landmark: PreparedExam) -> list[Order]:
        """The order of a method's evidence, and random ones of blocks of the same size."""
        field, crop = landmark.window.read_mask, landmark.window.grid.shape[0]
        cells, rng = self.subjects[number].cells[key], self._generator(_ORDERS, number, key)
        values = cells_to_voxels(cells.cells, cells.cell_voxels, crop)
        resolution = make_explainer(key).resolution_voxels(crop)
        evidences = [values, *[np.zeros_like(values)] * DRAWS]
        return [removal_order(evidence, field, resolution, rng) for evidence in evidences]

    def _prepared(self, subject: Subject) -> list[PreparedExam]:
        return self._cache.get(subject.patient.exams)

    def _generator(self, purpose: int, *parts: int | str) -> np.random.Generator:
        """The same for one purpose, patient and method, whatever other methods are chosen."""
        known = list(METHODS)
        numbers = [known.index(part) if isinstance(part, str) else part for part in parts]
        return np.random.default_rng([self.seed, purpose, *numbers])


def fresh_network(config: ModelConfig) -> HCCNet:
    """A network before training; its backbone starts as training starts it, or it would hardly tell bright from dark."""
    model = HCCNet(config)
    scale_weights(model.backbone)
    return model


def _against_random(curves: Curves) -> Curves:
    """(1 + draws, 2, fractions), the first in the order of the evidence → (2, 2, fractions): it, and the mean of the draws."""
    pair: Curves = np.stack([curves[0], curves[1:].mean(axis=0)])
    return pair


def _area_above_random(curves: Curves) -> list[float]:
    """Deletion and insertion: area under the curve minus that in random order."""
    ordered, random = area(_against_random(curves))
    difference: list[float] = (ordered - random).tolist()
    return difference


def _locate(row: MapFigures, found: Localisation, place: LesionPlace) -> None:
    row.distance_mm, row.hit, row.inside, row.energy = found.distance_mm, found.hit, found.inside, found.energy
    row.random_hit, row.random_hit_in_field = place.random_hit, place.random_hit_in_field
    row.lesion_share = place.share_of_field


def _hit(cells: LandmarkCells, place: LesionPlace) -> float:
    """1 where the peak is near the lesion; a map without a peak misses."""
    return float(cells.peak_mm is not None and place.distance_mm(cells.peak_mm) <= WITHIN_MM)


def _burden(explained: Explained, lesion_ml: Sequence[float]) -> Burden:
    gradient = explained.gradient_attention
    attention: dict[str, Sequence[float] | None] = {
        ROLLOUT: known([exam.attention for exam in explained.prediction.exams]),
        GRADIENT: None if gradient is None else gradient.tolist(),
    }
    correlation = {name: None if shares is None else spearman(shares, lesion_ml) for name, shares in attention.items()}
    return Burden(attention, lesion_ml, correlation)
