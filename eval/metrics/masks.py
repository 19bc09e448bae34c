"""J and F of masks: they live in `trackgpt.geometry.jf`, since `trackgpt demo` shows them too."""

from trackgpt.geometry.jf import BOUND_TH as BOUND_TH
from trackgpt.geometry.jf import RECALL_THRESHOLD as RECALL_THRESHOLD
from trackgpt.geometry.jf import Overall as Overall
from trackgpt.geometry.jf import Scores as Scores
from trackgpt.geometry.jf import Summary as Summary
from trackgpt.geometry.jf import boundary_accuracy as boundary_accuracy
from trackgpt.geometry.jf import jf_mean as jf_mean
from trackgpt.geometry.jf import over_objects as over_objects
from trackgpt.geometry.jf import region_similarity as region_similarity
from trackgpt.geometry.jf import sequence_scores as sequence_scores
from trackgpt.geometry.jf import summarise as summarise
