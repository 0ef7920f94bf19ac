"""The words of the phantom's captions. All sentences were written for this project."""

MODES = {
    "x-ray": ("X-ray", "radiograph", "plain radiograph", "plain film", "radiography"),
    "CT": ("CT", "CT scan", "computed tomography", "computed tomography (CT) scan", "contrast-enhanced CT", "CECT"),
    "MR": ("MRI", "magnetic resonance imaging", "MR image", "magnetic resonance image", "MRI scan"),
    "ultrasound": ("ultrasound", "ultrasonography", "US", "sonogram", "B-mode ultrasound"),
    "PET": ("PET", "FDG-PET", "positron emission tomography", "PET scan"),
}
WEIGHTINGS = {"T1": ("T1-weighted", "T1W", "T1"), "T2": ("T2-weighted", "T2W", "T2")}
VIEWS = {
    "frontal": ("frontal", "AP", "anteroposterior", "PA"),
    "lateral": ("lateral", "lateral"),
    "axial": ("axial", "axial", "transaxial"),
    "coronal": ("coronal",),
    "sagittal": ("sagittal", "midsagittal"),
    "transverse": ("transverse", "short-axis"),
    "longitudinal": ("longitudinal", "long-axis"),
}
REGIONS = {
    "head": ("head", "brain", "skull", "cranium"),
    "chest": ("chest", "thorax", "chest"),
    "abdomen": ("abdomen", "upper abdomen", "abdomen"),
    "pelvis": ("pelvis", "hip region", "pelvis"),
    "knee": ("knee", "knee joint", "knee"),
    "spine": ("spine", "lumbar spine", "vertebral column"),
}
NOUNS = {
    "mass": ("mass", "tumor", "lesion", "neoplasm", "nodule"),
    "cyst": ("cyst", "cystic lesion", "fluid-filled lesion"),
    "abscess": ("abscess", "ring-enhancing lesion", "rim-enhancing collection"),
    "calcification": ("calcifications", "calcified foci", "calcific deposits"),
    "fracture": ("fracture", "fracture line", "cortical break"),
    "effusion": ("effusion", "fluid collection", "fluid"),
    "infiltrate": ("infiltrate", "ill-defined opacity", "patchy opacity", "edema"),
    "device": ("catheter", "drain", "implanted device", "tube"),
}
MASS_NOUNS = ("calcification", "infiltrate", "effusion")
PLACED_NOUNS = {
    ("effusion", "chest"): "pleural effusion",
    ("effusion", "head"): "subdural collection",
    ("effusion", "abdomen"): "ascites",
    ("effusion", "pelvis"): "free pelvic fluid",
    ("effusion", "knee"): "joint effusion",
    ("effusion", "spine"): "epidural collection",
    ("infiltrate", "chest"): "consolidation",
    ("infiltrate", "head"): "vasogenic edema",
    ("infiltrate", "knee"): "bone marrow edema",
    ("infiltrate", "abdomen"): "fat stranding",
    ("device", "chest"): "central venous catheter",
    ("device", "head"): "ventricular shunt",
    ("device", "abdomen"): "percutaneous drain",
    ("device", "knee"): "fixation wire",
    ("device", "spine"): "pedicle screw",
    ("fracture", "head"): "skull fracture",
    ("fracture", "spine"): "compression fracture",
    ("fracture", "chest"): "rib fracture",
    ("mass", "chest"): "pulmonary nodule",
    ("mass", "abdomen"): "hepatic mass",
    ("mass", "head"): "intracranial tumor",
    ("cyst", "abdomen"): "simple cyst",
    ("cyst", "knee"): "meniscal cyst",
    ("cyst", "pelvis"): "adnexal cyst",
}
ADJECTIVES = {
    "mass": ("solid", "lobulated", "heterogeneous", "enhancing"),
    "cyst": ("well-defined", "smooth", "thin-walled", "unilocular"),
    "abscess": ("thick-walled", "necrotic", "hypodense"),
    "calcification": ("scattered", "punctate", "dense", "clustered"),
    "fracture": ("displaced", "oblique", "comminuted", "undisplaced"),
    "effusion": ("free", "layering", "dependent"),
    "infiltrate": ("diffuse", "patchy", "ill-defined", "hazy"),
    "device": ("indwelling", "well-positioned", "radiopaque"),
}
SIZES = {
    "small": ("small", "tiny", "minimal", "subtle"),
    "medium": ("moderate", "moderate-sized", "medium-sized"),
    "large": ("large", "huge", "massive", "extensive"),
}
SIDES = {"left": ("left", "left-sided", "Lt."), "right": ("right", "right-sided", "Rt.")}
SIDE_WORDS = {"left": ("left", "left", "Lt"), "right": ("right", "right", "Rt")}
PLACES = {
    "head": {
        "upper": ("frontal region", "frontal lobe"),
        "middle": ("temporal region", "deep white matter"),
        "lower": ("occipital region", "posterior fossa"),
    },
    "chest": {
        "upper": ("upper lobe", "apex"),
        "middle": ("mid zone", "perihilar region"),
        "lower": ("lower lobe", "lung base"),
    },
    "abdomen": {
        "upper": ("upper quadrant", "subphrenic space"),
        "middle": ("flank", "renal region"),
        "lower": ("lower quadrant", "iliac fossa"),
    },
    "pelvis": {
        "upper": ("iliac wing", "upper pelvis"),
        "middle": ("acetabular region", "hip joint"),
        "lower": ("ischial region", "lower pelvis"),
    },
    "knee": {
        "upper": ("distal femur", "suprapatellar region"),
        "middle": ("joint space", "femoral condyle"),
        "lower": ("proximal tibia", "tibial plateau"),
    },
    "spine": {
        "upper": ("L1 level", "upper lumbar segment"),
        "middle": ("L3 level", "mid-lumbar segment"),
        "lower": ("L5 level", "lumbosacral junction"),
    },
}
VERBS = ("showing", "demonstrating", "revealing", "shows", "demonstrates", "reveals", "with", "confirms", "showed")
NORMAL = (
    "showing no abnormality",
    "without pathological findings",
    "is normal",
    "with normal appearances",
    "shows no acute findings",
)
PATIENTS = (
    "a {age}-year-old man",
    "a {age}-year-old woman",
    "a {age}-year-old patient",
    "our patient",
    "the index case",
)
NEGATIONS = (
    "no {absent} is seen",
    "there is no evidence of {absent}",
    "no associated {absent}",
    "negative for {absent}",
    "no {absent} was identified",
)
DETAILS = (
    "the {noun} extends toward the {place}",
    "the {noun} is best seen in the {place}",
    "note the {noun} at the {place}",
    "the margin of the {noun} reaches the {place}",
    "adjacent structures around the {noun} are preserved",
)
STORIES = (
    "the patient presented with pain for {days} days",
    "a follow-up study after {months} months was unchanged",
    "the diagnosis was confirmed at surgery",
    "the patient was treated conservatively and discharged after {days} days",
    "the finding was incidental",
    "histology confirmed the diagnosis",
    "this image was obtained on day {days} after admission",
    "the patient was a {age}-year-old man with fever",
    "the patient was a {age}-year-old woman with a history of trauma",
    "surgical treatment was planned",
    "the examination was repeated {months} months later",
    "laboratory values were within normal limits",
    "image obtained before treatment",
    "written consent was obtained from the patient",
    "the patient recovered without complications",
    "the lesion had not been visible {months} months earlier",
)
